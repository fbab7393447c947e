//! What a pass reads and writes: where the caller has it, checked against what the pass was made for.

use std::any::TypeId;
use std::sync::atomic::AtomicBool;

use super::{Fusion, Kind, MAX_OPERANDS};
use crate::conv::OnDemand;
use crate::par::SendPtr;
use crate::real::Real;

/// An operand.
#[derive(Clone, Copy, Debug)]
pub enum In<'a, T> {
    /// Numbers.
    Float(&'a [T]),
    /// Indices of windows.
    Index(&'a [u32]),
    /// Numbers that are computed where they are read; of one input at most.
    Conv(&'a OnDemand<'a, T>),
}

/// A result in memory.
#[derive(Debug)]
pub enum Out<'a, T> {
    /// Numbers.
    Float(&'a mut [T]),
    /// Numbers that are looked at while they lie in the cache: whether one is not finite, which is then noted.
    Watched(&'a mut [T], &'a AtomicBool),
    /// Indices of windows.
    Index(&'a mut [u32]),
}

/// The input that is a convolution on demand.
pub(super) fn conv<'a, T: Real>(ins: &[In<'a, T>]) -> Option<(usize, &'a OnDemand<'a, T>)> {
    ins.iter().enumerate().find_map(|(i, x)| match x {
        In::Conv(conv) => Some((i, *conv)),
        In::Float(_) | In::Index(_) => None,
    })
}

/// Where the operands of a pass lie: filled in place, because to move it takes as long as a small pass.
#[derive(Clone)]
pub(super) struct Operands<'a> {
    pub(super) inputs: [Memory; MAX_OPERANDS],
    pub(super) outputs: [Memory; MAX_OPERANDS],
    /// For each output what is to be told of a number that is not finite, if anything is.
    pub(super) watch: [Option<&'a AtomicBool>; MAX_OPERANDS],
}

impl<'a> Operands<'a> {
    pub(super) const NONE: Operands<'a> = Operands {
        inputs: [Memory::NONE; MAX_OPERANDS],
        outputs: [Memory::NONE; MAX_OPERANDS],
        watch: [None; MAX_OPERANDS],
    };

    /// Checks what a pass reads; input `but` is none of `ins`, and for the caller to set.
    #[track_caller]
    pub(super) fn read<T: Real>(&mut self, fusion: &Fusion, but: Option<usize>, ins: &[In<'_, T>], params: &[&[T]]) {
        let given = [ins.len() + usize::from(but.is_some()), params.len()];
        assert_eq!(given, [fusion.inputs.len(), fusion.params], "fused: operands");
        for x in params {
            let fits = x.len() == fusion.period || x.len() == 1;
            assert!(fits, "fused: {} numbers for {} columns", x.len(), fusion.period);
        }
        let mut convs = 0;
        for (i, x) in ins.iter().enumerate() {
            let i = if but.is_some_and(|but| but <= i) { i + 1 } else { i };
            let kind = fusion.inputs[i];
            self.inputs[i] = match x {
                In::Float(x) => Memory::of(fusion, x.as_ptr().cast_mut(), x.len(), kind),
                In::Index(x) => Memory::of(fusion, x.as_ptr().cast_mut(), x.len(), kind),
                In::Conv(x) => {
                    assert!(fusion.takes_conv(i, x.pixels(), x.channels()), "fused: input {i} as a convolution");
                    convs += 1;
                    Memory::NONE
                }
            };
        }
        assert!(convs <= 1, "fused: {convs} convolutions on demand");
    }

    /// Checks what a pass writes.
    #[track_caller]
    pub(super) fn write<T: Real>(&mut self, fusion: &Fusion, outs: &mut [Out<'a, T>]) {
        assert_eq!(outs.len(), fusion.outputs.len(), "fused: outputs");
        for (i, (x, &kind)) in outs.iter_mut().zip(&fusion.outputs).enumerate() {
            self.outputs[i] = match x {
                Out::Float(x) => Memory::of(fusion, x.as_mut_ptr(), x.len(), kind),
                Out::Watched(x, spoilt) => {
                    assert!(kind != Kind::Columns, "fused: a sum that is watched");
                    self.watch[i] = Some(*spoilt);
                    Memory::of(fusion, x.as_mut_ptr(), x.len(), kind)
                }
                Out::Index(x) => Memory::of(fusion, x.as_mut_ptr(), x.len(), kind),
            };
        }
    }
}

/// An operand in memory: where it begins, and how many bytes a unit of it takes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) pointer: SendPtr<u8>,
    pub(super) stride: usize,
}

impl Memory {
    pub(super) const NONE: Memory = Memory { pointer: SendPtr::NULL, stride: 0 };

    /// `len` numbers, or indices, at `pointer`.
    #[track_caller]
    fn of<E: 'static>(fusion: &Fusion, pointer: *mut E, len: usize, kind: Kind) -> Memory {
        let is_index = TypeId::of::<E>() == TypeId::of::<u32>();
        assert!(len == fusion.len(kind) && is_index == (kind == Kind::Indices), "fused: {len} elements for {kind:?}");
        Memory { pointer: SendPtr::from_raw(pointer.cast()), stride: fusion.unit(kind) * size_of::<E>() }
    }
}
