//! What the sums of [`crate::fold`] add up, element by element, and the sum of one contiguous line of it.

use crate::fold::RUN;
use crate::real::Real;
use crate::simd::Simd;

/// Room for the accumulators of either type.
pub(crate) const MAX_WIDTH: usize = 64;

/// A parameter for each accumulator.
pub(crate) type Params<T> = [T; MAX_WIDTH];

/// Accumulators side by side: 256 bytes of them (four AVX-512 registers, eight of AVX2, sixteen of SSE).
#[inline(always)]
pub(crate) const fn width<T>() -> usize {
    256 / size_of::<T>()
}

/// A term of `N` sums: what is to be added for an element.
pub(crate) trait Term<T: Real, const N: usize>: Copy + Send + Sync {
    /// Whether terms have a parameter; if not, what is passed means nothing.
    const HAS_PARAMS: bool;

    /// How many elements there are.
    fn len(self) -> usize;

    /// The terms of a register of elements from `offset` on.
    ///
    /// # Safety
    /// The inputs have as many elements there as a register has, and so has `param`.
    unsafe fn vector<S: Simd>(self, simd: S, offset: usize, param: *const T) -> [T::Reg<S>; N];

    /// The terms of `count` elements from `offset` on, at most a register's; the lanes beyond are 0. `params` has a register's at least.
    fn partial<S: Simd>(self, simd: S, offset: usize, count: usize, params: &[T]) -> [T::Reg<S>; N];

    /// The terms of one element, the same bits as in a vector.
    fn scalar<S: Simd>(self, offset: usize, param: T) -> [T; N];
}

/// `count` elements from `offset` on, then zeros.
#[inline(always)]
fn load_partial<S: Simd, T: Real>(simd: S, x: &[T], offset: usize, count: usize) -> T::Reg<S> {
    if count == 0 { T::splat(simd, T::ZERO) } else { T::load_partial(simd, &x[offset..offset + count]) }
}

/// The elements themselves.
#[derive(Clone, Copy)]
pub(crate) struct Plain<'a, T>(pub(crate) &'a [T]);

impl<T: Real> Term<T, 1> for Plain<'_, T> {
    const HAS_PARAMS: bool = false;
    #[inline(always)]
    fn len(self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    unsafe fn vector<S: Simd>(self, simd: S, offset: usize, _: *const T) -> [T::Reg<S>; 1] {
        // SAFETY: passed on to the caller.
        [unsafe { T::load(simd, self.0.as_ptr().add(offset)) }]
    }
    #[inline(always)]
    fn partial<S: Simd>(self, simd: S, offset: usize, count: usize, _: &[T]) -> [T::Reg<S>; 1] {
        [load_partial(simd, self.0, offset, count)]
    }
    #[inline(always)]
    fn scalar<S: Simd>(self, offset: usize, _: T) -> [T; 1] {
        [self.0[offset]]
    }
}

/// Squared distances from the parameter.
#[derive(Clone, Copy)]
pub(crate) struct Centered<'a, T>(pub(crate) &'a [T]);

impl<T: Real> Term<T, 1> for Centered<'_, T> {
    const HAS_PARAMS: bool = true;
    #[inline(always)]
    fn len(self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    unsafe fn vector<S: Simd>(self, simd: S, offset: usize, param: *const T) -> [T::Reg<S>; 1] {
        // SAFETY: passed on to the caller.
        let (x, p) = unsafe { (T::load(simd, self.0.as_ptr().add(offset)), T::load(simd, param)) };
        let d = T::vsub(simd, x, p);
        [T::vmul(simd, d, d)]
    }
    #[inline(always)]
    fn partial<S: Simd>(self, simd: S, offset: usize, count: usize, params: &[T]) -> [T::Reg<S>; 1] {
        let x = load_partial(simd, self.0, offset, count);
        let d = T::vsub(simd, x, load_partial(simd, params, 0, count));
        [T::vmul(simd, d, d)]
    }
    #[inline(always)]
    fn scalar<S: Simd>(self, offset: usize, param: T) -> [T; 1] {
        let d = self.0[offset] - param;
        [d * d]
    }
}

/// The elements of the first input, and their products with the second's.
#[derive(Clone, Copy)]
pub(crate) struct PlainAndProduct<'a, T>(pub(crate) &'a [T], pub(crate) &'a [T]);

impl<T: Real> Term<T, 2> for PlainAndProduct<'_, T> {
    const HAS_PARAMS: bool = false;
    #[inline(always)]
    fn len(self) -> usize {
        self.0.len().min(self.1.len())
    }
    #[inline(always)]
    unsafe fn vector<S: Simd>(self, simd: S, offset: usize, _: *const T) -> [T::Reg<S>; 2] {
        // SAFETY: passed on to the caller.
        let (g, h) =
            unsafe { (T::load(simd, self.0.as_ptr().add(offset)), T::load(simd, self.1.as_ptr().add(offset))) };
        [g, T::vmul(simd, g, h)]
    }
    #[inline(always)]
    fn partial<S: Simd>(self, simd: S, offset: usize, count: usize, _: &[T]) -> [T::Reg<S>; 2] {
        let g = load_partial(simd, self.0, offset, count);
        [g, T::vmul(simd, g, load_partial(simd, self.1, offset, count))]
    }
    #[inline(always)]
    fn scalar<S: Simd>(self, offset: usize, _: T) -> [T; 2] {
        [self.0[offset], self.0[offset] * self.1[offset]]
    }
}

/// Up to this many elements a line is added one after the other.
const SHORT: usize = 8;

/// From this many elements on, four sets of accumulators take turns.
const LONG: usize = 256;

/// Accumulators of a line, a divisor of [`MAX_WIDTH`].
const LANES: usize = 16;

/// The sums of `len` contiguous terms with one parameter.
#[inline(always)]
pub(crate) fn line<S: Simd, T: Real, P: Term<T, N>, const N: usize>(
    simd: S,
    term: P,
    offset: usize,
    len: usize,
    param: T,
) -> [T; N] {
    assert!(offset + len <= term.len());
    if len <= SHORT {
        let mut sum = [T::ZERO; N];
        for i in offset..offset + len {
            for (sum, term) in sum.iter_mut().zip(term.scalar::<S>(i, param)) {
                *sum += term;
            }
        }
        return sum;
    }
    let params = [param; LANES];
    let mut total = [[T::ZERO; LANES]; N];
    // Long lines keep several registers in flight, which are joined at the end of a run.
    let whole = len / LANES * LANES;
    let mut done = 0;
    while whole - done >= LONG {
        let run = ((whole - done) / (4 * LANES)).min(RUN);
        let mut quarters = [[[T::ZERO; LANES]; N]; 4];
        run_lines(simd, term, offset + done, run, &params, &mut quarters);
        for i in 0..LANES {
            for n in 0..N {
                total[n][i] += (quarters[0][n][i] + quarters[1][n][i]) + (quarters[2][n][i] + quarters[3][n][i]);
            }
        }
        done += run * 4 * LANES;
    }
    let lanes = T::lanes::<S>();
    for i in 0..LANES / lanes {
        let mut sums = [T::splat(simd, T::ZERO); N];
        let at = i * lanes;
        for from in (done..whole).step_by(LANES) {
            // SAFETY: the whole registers of the line lie in the inputs, as asserted above; `params` is a register at least.
            let terms = unsafe { term.vector(simd, offset + from + at, params.as_ptr()) };
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum = T::vadd(simd, *sum, term);
            }
        }
        let left = (len - whole).saturating_sub(at).min(lanes);
        if left > 0 {
            let terms = term.partial(simd, offset + whole + at, left, &params);
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum = T::vadd(simd, *sum, term);
            }
        }
        for (total, sum) in total.iter_mut().zip(sums) {
            // SAFETY: `at + lanes <= LANES`.
            unsafe {
                let slot = total.as_mut_ptr().add(at);
                T::store(simd, slot, T::vadd(simd, T::load(simd, slot), sum));
            }
        }
    }
    total.map(tree)
}

/// Sums `run` groups of four times [`LANES`] elements into four sets of accumulators.
#[inline(always)]
fn run_lines<S: Simd, T: Real, P: Term<T, N>, const N: usize>(
    simd: S,
    term: P,
    offset: usize,
    run: usize,
    params: &[T; LANES],
    quarters: &mut [[[T; LANES]; N]; 4],
) {
    let lanes = T::lanes::<S>();
    // As many of the four at a time as leave room in sixteen registers.
    let beside = (8 * lanes / LANES / N).clamp(1, 4);
    for first in (0..4).step_by(beside) {
        for part in (0..LANES / lanes).step_by(8) {
            let parts = (LANES / lanes - part).min(8);
            let mut sums = [[[T::splat(simd, T::ZERO); 8]; 4]; N];
            for group in 0..run {
                for quarter in 0..beside {
                    for i in 0..parts {
                        let at = group * 4 * LANES + (first + quarter) * LANES + (part + i) * lanes;
                        // SAFETY: the caller asserted that the groups lie in the inputs; `params` is a register at least.
                        let terms = unsafe { term.vector(simd, offset + at, params.as_ptr()) };
                        for n in 0..N {
                            sums[n][quarter][i] = T::vadd(simd, sums[n][quarter][i], terms[n]);
                        }
                    }
                }
            }
            for quarter in 0..beside {
                for n in 0..N {
                    for i in 0..parts {
                        // SAFETY: `(part + i + 1) * lanes <= LANES`.
                        unsafe {
                            let slot = quarters[first + quarter][n].as_mut_ptr().add((part + i) * lanes);
                            T::store(simd, slot, sums[n][quarter][i]);
                        }
                    }
                }
            }
        }
    }
}

/// The sum of the accumulators, in pairs.
#[inline(always)]
fn tree<T: Real>(x: [T; LANES]) -> T {
    let a: [T; 8] = std::array::from_fn(|i| x[i] + x[i + 8]);
    let b: [T; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
    (b[0] + b[2]) + (b[1] + b[3])
}
