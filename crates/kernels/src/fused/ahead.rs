//! Asking for the operands of units that come later, at the pace of the work on the present ones. In a burst they would be more lines than the processor can
//! wait for.

use super::operands::Memory;
use crate::arena::LINE;
use crate::prefetch::one;

/// What is asked for, and how far that is.
pub(super) struct Ahead<'a> {
    /// All that lies in memory; what does not, and sums, have no stride.
    operands: [&'a [Memory]; 2],
    /// Bytes of a unit of all of them.
    stride: usize,
    /// First unit, and number of units.
    units: [usize; 2],
    /// Lines for each pixel of work, and those due but not yet asked for; in 65536ths.
    pace: usize,
    due: usize,
    /// The operand whose turn is next; where the present one goes on, and how many lines of it are left.
    next: usize,
    address: *const u8,
    lines: usize,
}

impl<'a> Ahead<'a> {
    /// For these inputs and outputs, of nothing yet.
    #[inline(always)]
    pub(super) fn new(operands: [&'a [Memory]; 2]) -> Self {
        let stride = operands.iter().copied().flatten().map(|m| m.stride).sum();
        Ahead {
            operands,
            stride,
            units: [0; 2],
            pace: 0,
            due: 0,
            next: usize::MAX,
            address: std::ptr::null(),
            lines: 0,
        }
    }

    /// From now on for units `[first, first + count)`, beside work on so many pixels.
    #[inline(always)]
    pub(super) fn aim(&mut self, [first, count]: [usize; 2], pixels: usize) {
        let lines = count * self.stride / LINE + self.operands[0].len() + self.operands[1].len();
        self.pace = (lines << 16).div_ceil(pixels.max(1));
        (self.units, self.due, self.next, self.lines) = ([first, count], 0, 0, 0);
    }

    /// For nothing more.
    #[inline(always)]
    pub(super) fn stop(&mut self) {
        (self.pace, self.due) = (0, 0);
    }

    /// Asks for what is due as work on so many pixels is done.
    #[inline(always)]
    pub(super) fn ask(&mut self, pixels: usize) {
        self.due += pixels * self.pace;
        while self.due >> 16 > 0 {
            if self.lines == 0 {
                let [inputs, outputs] = self.operands;
                let Some(m) = inputs.get(self.next).or_else(|| outputs.get(self.next - inputs.len())) else {
                    return self.stop();
                };
                let [first, count] = self.units;
                self.address = m.pointer.get().wrapping_add(first * m.stride);
                self.lines = (count * m.stride).div_ceil(LINE);
                self.next += 1;
            }
            let count = (self.due >> 16).min(self.lines);
            for line in 0..count {
                one(self.address.wrapping_add(line * LINE));
            }
            self.address = self.address.wrapping_add(count * LINE);
            (self.due, self.lines) = (self.due - (count << 16), self.lines - count);
        }
    }
}
