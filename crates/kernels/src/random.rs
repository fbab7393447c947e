//! Counter-based uniform numbers: element i depends on the key and on i alone (Philox 2x32 with 10 rounds: Salmon, Moraes, Dror, Shaw, "Parallel random
//! numbers: as easy as 1, 2, 3", 2011).

use crate::real::Real;
use crate::simd::{Kernel, Simd, dispatch};

/// Rounds, as recommended by the authors.
const ROUNDS: usize = 10;
/// Multiplier of a round.
const MULTIPLIER: u32 = 0xd256_d193;
/// Added to the key after each round (the golden ratio).
const WEYL: u32 = 0x9e37_79b9;

/// Fills `out` with uniform numbers from [0, 1): 24 random bits for `f32`, 53 for `f64`.
///
/// `out[i]` depends on `key` and `i` only, so a prefix of a longer output is the shorter output.
pub(crate) fn uniform<T: Real>(key: [u32; 2], out: &mut [T]) {
    dispatch(Uniform { key, out });
}

struct Uniform<'a, T> {
    key: [u32; 2],
    out: &'a mut [T],
}

/// Numbers whose counters share their high half, so that the rounds are computed in lanes of 32 bits.
const BLOCK: usize = 64;

/// The block cipher: counter and key to two random words.
#[inline(always)]
fn philox([mut x, mut y]: [u32; 2], mut key: u32) -> [u32; 2] {
    for _ in 0..ROUNDS {
        let product = u64::from(x) * u64::from(MULTIPLIER);
        x = (product >> 32) as u32 ^ key ^ y;
        y = product as u32;
        key = key.wrapping_add(WEYL);
    }
    [x, y]
}

impl<T: Real> Kernel for Uniform<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // The second word of the key joins the counter's high half.
        let [low, high] = self.key;
        let mut block = [T::ZERO; BLOCK];
        for (i, out) in self.out.chunks_mut(BLOCK).enumerate() {
            let first = (i * BLOCK) as u64;
            let high = high ^ (first >> 32) as u32;
            for (j, o) in block.iter_mut().enumerate() {
                *o = T::from_random(philox([first as u32 + j as u32, high], low));
            }
            out.copy_from_slice(&block[..out.len()]);
        }
    }
}
