//! How much arithmetic a program does: the multiply-adds of its products and convolutions.

use metaforge_kernels::ConvDims;

use super::graph::Op;
use super::{Instr, Program};
use crate::aval::Shape;
use crate::prim::Prim;

impl Program {
    /// Floating-point operations of one run: the multiply-adds of matrix products and of the three convolutions, each counted as two.
    /// Everything else counts nothing, and costs memory traffic rather than arithmetic.
    ///
    /// A convolution counts densely: every tap of every output, those on the padding included, whatever way the kernel takes. A kernel
    /// that saves multiplications may so seem faster than the machine.
    pub fn flops(&self) -> u64 {
        let out = |instr: &Instr| self.values[instr.outs[0]].aval.shape;
        // A convolution that is computed where it is read counts once.
        let on_demand = self.on_demand.iter().map(|conv| of_dims(&conv.dims));
        let all = self.instrs.iter().map(|instr| multiply_adds(instr, out(instr))).chain(on_demand);
        all.map(|n| 2 * n as u64).sum()
    }
}

/// Those of any pass of a convolution.
fn of_dims(dims: &ConvDims) -> usize {
    let [h, w] = dims.out_hw().unwrap_or_default();
    dims.n * h * w * dims.co * dims.kernel[0] * dims.kernel[1] * dims.ci / dims.groups
}

/// The table of this concern: a row for every primitive.
fn multiply_adds(instr: &Instr, out: Shape) -> usize {
    let shape = |operand: usize| instr.ins[operand].aval.shape;
    // Weights are [KH, KW, C_in / groups, C_out]: an output number takes a multiply-add for each weight of its channel.
    let taps = |weights: &[usize]| weights[..3].iter().product::<usize>();
    let prim = match &instr.op {
        Op::Prim(prim) => prim,
        Op::ConvStatistics { dims, .. } | Op::FusedConv { dims, .. } | Op::FusedWeightGrad { dims, .. } => {
            return of_dims(dims);
        }
        Op::Product { dims, .. } => return dims.batch * dims.m * dims.n * dims.k,
        Op::Statistics { .. } | Op::Coefficients { .. } | Op::Step(_) | Op::Fused { .. } => return 0,
    };
    match prim {
        &Prim::MatMul { ta, interleaved, .. } => {
            let a = shape(0);
            out.elements()
                * if !ta {
                    a[a.len() - 1]
                } else if interleaved {
                    a[0]
                } else {
                    a[a.len() - 2]
                }
        }
        Prim::Conv(_) => out.elements() * taps(&shape(1)),
        Prim::ConvInputGrad { .. } => shape(0).elements() * taps(&shape(1)),
        Prim::ConvWeightGrad { .. } => shape(1).elements() * taps(&out),
        Prim::Unary(_)
        | Prim::Binary(_)
        | Prim::Select
        | Prim::Cast(_)
        | Prim::StopGradient
        | Prim::Barrier
        | Prim::Reshape(_)
        | Prim::Permute(_)
        | Prim::Broadcast(_)
        | Prim::SumTo(_)
        | Prim::Slice { .. }
        | Prim::Pad { .. }
        | Prim::Flip { .. }
        | Prim::Concat { .. }
        | Prim::Argmax
        | Prim::Gather
        | Prim::ScatterAdd { .. }
        | Prim::MaxPoolIndices(_)
        | Prim::SumPool(_)
        | Prim::SumUnpool { .. }
        | Prim::LogSoftmax
        | Prim::Normalize { .. }
        | Prim::Rstd { .. }
        | Prim::NormalizeGrad
        | Prim::Uniform(_)
        | Prim::Custom(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Aval, Conv, DType, Program, grad};

    fn f32s(shape: &[usize]) -> Aval {
        Aval::new(shape, DType::F32)
    }

    #[test]
    fn a_product_and_its_gradients() {
        // [3, 4] x [4, 5] is 60 multiply-adds; each of its two gradients is as many.
        let program = Program::trace(&[f32s(&[3, 4]), f32s(&[4, 5])], |_, x| {
            let y = x[0].matmul(x[1]).tanh();
            [vec![y], grad(y.sum(), x)].concat()
        });
        assert_eq!(program.flops(), 3 * 2 * 60);
        let batched =
            Program::trace(&[f32s(&[7, 4, 3]), f32s(&[7, 5, 4])], |_, x| vec![x[0].matmul_t(x[1], true, true)]);
        assert_eq!(batched.flops(), 7 * 2 * 60);
    }

    #[test]
    fn a_convolution_and_its_gradients() {
        // Stride 2 with one row of padding: [2, 6, 6, 4] to [2, 3, 3, 8], 3 x 3 x 4 multiply-adds a number.
        let conv = Conv::new().stride(2).pad(1);
        let program = Program::trace(&[f32s(&[2, 6, 6, 4]), f32s(&[3, 3, 4, 8])], |_, x| {
            let y = x[0].conv2d(x[1], conv).tanh();
            [vec![y], grad(y.sum(), x)].concat()
        });
        assert_eq!(program.flops(), 3 * 2 * (2 * 3 * 3 * 8) * (3 * 3 * 4));
        let grouped = Program::trace(&[f32s(&[1, 5, 5, 4]), f32s(&[3, 3, 2, 6])], |_, x| {
            vec![x[0].conv2d(x[1], Conv::new().groups(2))]
        });
        assert_eq!(grouped.flops(), 2 * (3 * 3 * 6) * (3 * 3 * 2));
    }

    #[test]
    fn what_is_no_product_counts_nothing() {
        let program = Program::trace(&[f32s(&[8, 8])], |_, x| vec![x[0].exp().log_softmax().sum()]);
        assert_eq!(program.flops(), 0);
    }
}
