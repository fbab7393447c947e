//! One source, three instruction sets: a kernel is written once over [`Simd`] and [`dispatch`] runs it compiled for AVX-512,
//! for AVX2 with FMA, or for the target's baseline, whichever the processor has.
//!
//! Inside a kernel everything must be `#[inline(always)]`, else it is compiled for the baseline. Elementwise code is plain scalar
//! Rust that the compiler vectorises: the language neither reorders nor contracts floating-point operations, so an element gets the same bits
//! in a full vector and in the tail of a slice. Reductions use registers ([`crate::Real::Reg`]) where order is part of the design.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set that a kernel can be run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The target's baseline (SSE2 on x86-64), without fused multiply-add there.
    Portable,
    /// AVX2 and FMA: 256-bit vectors.
    Avx2,
    /// AVX-512 (F, BW, CD, DQ, VL): 512-bit vectors.
    Avx512,
}

impl Isa {
    /// All, from the narrowest to the widest.
    pub const ALL: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => pulp::x86::V3::is_available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => pulp::x86::V4::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    fn parse(name: &str) -> Option<Isa> {
        match name {
            "portable" => Some(Isa::Portable),
            "avx2" => Some(Isa::Avx2),
            "avx512" => Some(Isa::Avx512),
            _ => None,
        }
    }
}

/// The set forced by [`force_isa`], as `Isa as u8 + 1`; 0 when nothing is forced.
static FORCED: AtomicU8 = AtomicU8::new(0);

/// The widest set that this processor has and that `METAFORGE_ISA` allows.
fn detected() -> Isa {
    static DETECTED: OnceLock<Isa> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        let limit = std::env::var("METAFORGE_ISA").ok().and_then(|name| Isa::parse(&name));
        Isa::ALL
            .into_iter()
            .filter(|&isa| limit.is_none_or(|limit| isa <= limit) && isa.is_available())
            .max()
            .unwrap_or(Isa::Portable)
    })
}

/// The instruction set in use.
///
/// A testing aid: the variable `METAFORGE_ISA` (`avx512`, `avx2`, `portable`), read once, sets an upper limit so that a whole test suite can run on
/// each path. It is not meant for anything else.
#[inline]
pub fn isa() -> Isa {
    match FORCED.load(Ordering::Relaxed) {
        1 => Isa::Portable,
        2 => Isa::Avx2,
        3 => Isa::Avx512,
        _ => detected(),
    }
}

/// Forces an instruction set for the whole process, or with `None` goes back to what was detected; false if the processor lacks it.
///
/// A testing aid. Results of different sets may differ in their last bits, so a test that forces one serialises with
/// others that compare bits.
pub fn force_isa(isa: Option<Isa>) -> bool {
    if let Some(isa) = isa {
        if !isa.is_available() {
            return false;
        }
        FORCED.store(isa as u8 + 1, Ordering::Relaxed);
    } else {
        FORCED.store(0, Ordering::Relaxed);
    }
    true
}

/// A token that proves that an instruction set is there, with the registers and operations of it.
pub trait Simd: pulp::Simd {
    /// Which set it is the token of.
    const ISA: Isa;
    /// The set with registers of half the size, which is there where this set is; this set itself, if there is none.
    type Half: Simd;
    /// Whether a fused multiply-add is one instruction. Where it is not, kernels multiply, round and add: the library function is
    /// about fifty times slower.
    const FMA: bool;

    /// The token of [`Simd::Half`].
    fn half(self) -> Self::Half;
}

#[cfg(target_arch = "x86_64")]
impl Simd for pulp::x86::V4 {
    const ISA: Isa = Isa::Avx512;
    type Half = pulp::x86::V3;
    const FMA: bool = true;

    #[inline(always)]
    fn half(self) -> pulp::x86::V3 {
        *self
    }
}
#[cfg(target_arch = "x86_64")]
impl Simd for pulp::x86::V3 {
    const ISA: Isa = Isa::Avx2;
    type Half = Self;
    const FMA: bool = true;

    #[inline(always)]
    fn half(self) -> Self {
        self
    }
}
impl Simd for pulp::Scalar128b {
    const ISA: Isa = Isa::Portable;
    type Half = Self;
    const FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

    #[inline(always)]
    fn half(self) -> Self {
        self
    }
}

/// Work that is compiled once for each instruction set. `run` must be `#[inline(always)]`, and so must what it calls.
pub trait Kernel {
    /// What `run` returns.
    type Output;
    /// Does the work with the registers of `S`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
struct Bound<K, S>(K, S);

#[cfg(target_arch = "x86_64")]
impl<K: Kernel, S: Simd> pulp::NullaryFnOnce for Bound<K, S> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.0.run(self.1)
    }
}

/// Runs `kernel` with the instruction set in use ([`isa`]).
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    dispatch_on(isa(), kernel)
}

/// Runs `kernel` with the instruction set `isa`, or with the baseline if the processor lacks it.
#[inline]
pub(crate) fn dispatch_on<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    match isa {
        Isa::Avx512 => {
            if let Some(simd) = pulp::x86::V4::try_new() {
                return simd.vectorize(Bound(kernel, simd));
            }
        }
        Isa::Avx2 => {
            if let Some(simd) = pulp::x86::V3::try_new() {
                return simd.vectorize(Bound(kernel, simd));
            }
        }
        Isa::Portable => {}
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    kernel.run(pulp::Scalar128b)
}
