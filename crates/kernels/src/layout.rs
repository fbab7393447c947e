//! Shapes with strides, simplified before a kernel walks them: axes of size 1 go, and neighbours that are one run for all operands become one.

/// The most axes a kernel takes.
pub const MAX_RANK: usize = 8;

/// A shape of at most [`MAX_RANK`] axes with the strides of `K` operands, without axes of size 1 and with no two axes that could be one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<const K: usize> {
    rank: usize,
    shape: [usize; MAX_RANK],
    strides: [[isize; MAX_RANK]; K],
}

impl<const K: usize> Layout<K> {
    /// Collapses `shape`, where operand `k` moves by `stride(k, axis)` elements along an axis.
    #[inline]
    pub(crate) fn new(shape: &[usize], stride: impl Fn(usize, usize) -> isize) -> Self {
        assert!(shape.len() <= MAX_RANK, "kernels take at most {MAX_RANK} axes, got shape {shape:?}");
        let mut layout = Self { rank: 0, shape: [1; MAX_RANK], strides: [[0; MAX_RANK]; K] };
        for (axis, &size) in shape.iter().enumerate() {
            if size == 1 {
                continue;
            }
            let last = layout.rank.wrapping_sub(1);
            let joins = layout.rank > 0 && (0..K).all(|k| layout.strides[k][last] == stride(k, axis) * size as isize);
            let slot = if joins {
                layout.shape[last] *= size;
                last
            } else {
                layout.shape[layout.rank] = size;
                layout.rank += 1;
                layout.rank - 1
            };
            for k in 0..K {
                layout.strides[k][slot] = stride(k, axis);
            }
        }
        layout
    }

    /// One axis.
    #[inline]
    pub(crate) fn line(len: usize, strides: [isize; K]) -> Self {
        let mut layout = Self { rank: 1, shape: [1; MAX_RANK], strides: [[0; MAX_RANK]; K] };
        layout.shape[0] = len;
        for k in 0..K {
            layout.strides[k][0] = strides[k];
        }
        layout
    }

    /// The same elements in another order: the axis that is `back` from the last becomes the last but one.
    pub(crate) fn with_last_but_one(&self, back: usize) -> Self {
        let mut layout = *self;
        let axes = self.rank - 1 - back..self.rank - 1;
        layout.shape[axes.clone()].rotate_left(1);
        for strides in &mut layout.strides {
            strides[axes.clone()].rotate_left(1);
        }
        layout
    }

    /// The axes that are left.
    #[inline(always)]
    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    /// The size of the axis that is `back` from the last; 1 when there is none.
    #[inline(always)]
    pub(crate) fn size(&self, back: usize) -> usize {
        if back < self.rank { self.shape[self.rank - 1 - back] } else { 1 }
    }

    /// The stride of operand `k` on the axis that is `back` from the last; 0 when there is none.
    #[inline(always)]
    pub(crate) fn stride(&self, k: usize, back: usize) -> isize {
        if back < self.rank { self.strides[k][self.rank - 1 - back] } else { 0 }
    }

    /// The number of rows: the product of all sizes but the last.
    #[inline]
    pub(crate) fn rows(&self) -> usize {
        self.shape[..self.rank.saturating_sub(1)].iter().product()
    }

    /// The largest offset that each operand reaches from 0, or `None` if the shape is empty or a stride is negative.
    #[inline]
    pub(crate) fn reach(&self, k: usize) -> Option<usize> {
        let mut reach = 0usize;
        for axis in 0..self.rank {
            let steps = self.shape[axis].checked_sub(1)?;
            reach += steps * usize::try_from(self.strides[k][axis]).ok()?;
        }
        Some(reach)
    }

    /// Calls `f` with the operands' offsets for rows `start..end`.
    #[inline(always)]
    pub(crate) fn for_rows(&self, start: usize, end: usize, mut f: impl FnMut([isize; K])) {
        let mut walk = Walk::at(self, start);
        for _ in start..end {
            f(walk.offsets);
            walk.step(self);
        }
    }
}

/// A position on the row axes (all but the last), with the offsets that belong to it.
pub(crate) struct Walk<const K: usize> {
    index: [usize; MAX_RANK],
    offsets: [isize; K],
}

impl<const K: usize> Walk<K> {
    #[inline]
    pub(crate) fn at(layout: &Layout<K>, row: usize) -> Self {
        let mut walk = Self { index: [0; MAX_RANK], offsets: [0; K] };
        let mut rest = row;
        for axis in (0..layout.rank.saturating_sub(1)).rev() {
            let i = rest % layout.shape[axis];
            rest /= layout.shape[axis];
            walk.index[axis] = i;
            for k in 0..K {
                walk.offsets[k] += i as isize * layout.strides[k][axis];
            }
        }
        walk
    }

    /// The operands' offsets.
    #[inline(always)]
    pub(crate) fn offsets(&self) -> [isize; K] {
        self.offsets
    }

    #[inline(always)]
    fn step(&mut self, layout: &Layout<K>) {
        let mut axis = layout.rank.saturating_sub(1);
        while axis > 0 {
            axis -= 1;
            self.index[axis] += 1;
            if self.index[axis] < layout.shape[axis] {
                for k in 0..K {
                    self.offsets[k] += layout.strides[k][axis];
                }
                return;
            }
            self.index[axis] = 0;
            for k in 0..K {
                self.offsets[k] -= (layout.shape[axis] - 1) as isize * layout.strides[k][axis];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_collapse() {
        // [2, 1, 3, 4] contiguous is one axis of 24.
        let strides = [12isize, 12, 4, 1];
        let layout = Layout::<1>::new(&[2, 1, 3, 4], |_, axis| strides[axis]);
        assert_eq!((layout.rank(), layout.size(0), layout.stride(0, 0)), (1, 24, 1));
        // A row broadcast keeps its two axes.
        let a = [12isize, 4, 1];
        let b = [0isize, 0, 1];
        let layout = Layout::<2>::new(&[2, 3, 4], |k, axis| [a, b][k][axis]);
        assert_eq!((layout.rank(), layout.size(1), layout.size(0)), (2, 6, 4));
        assert_eq!((layout.stride(0, 1), layout.stride(1, 1)), (4, 0));
        assert_eq!((layout.reach(0), layout.reach(1)), (Some(23), Some(3)));
    }

    #[test]
    fn walks_can_start_anywhere() {
        let strides = [100isize, -7, 3];
        let shape = [3, 4, 5];
        let layout = Layout::<1>::new(&shape, |_, axis| strides[axis]);
        let mut all = Vec::new();
        layout.for_rows(0, 12, |[o]| all.push(o));
        let expected: Vec<isize> = (0..12).map(|r| (r / 4) * 100 - (r % 4) * 7).collect();
        assert_eq!(all, expected);
        let mut part = Vec::new();
        layout.for_rows(5, 9, |[o]| part.push(o));
        assert_eq!(part, expected[5..9]);
    }
}
