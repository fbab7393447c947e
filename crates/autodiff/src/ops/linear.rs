//! Matrix products.

use crate::prim::Prim;
use crate::tape::Var;

impl<'t> Var<'t> {
    /// Matrix product: `[.., M, K] x [K, N] -> [.., M, N]`, or `[B, M, K] x [B, K, N] -> [B, M, N]`, or `[M, K] x [B, K, N]`.
    #[track_caller]
    pub fn matmul(self, other: Var<'t>) -> Var<'t> {
        self.matmul_t(other, false, false)
    }

    /// Matrix product of the operands, each transposed (its last two axes) if its flag says so; nothing is copied for it.
    #[track_caller]
    pub fn matmul_t(self, other: Var<'t>, ta: bool, tb: bool) -> Var<'t> {
        let (a, b) = (self.shape(), other.shape());
        if a.len() > 2 && b.len() == 2 && !ta {
            // One tall product instead of a batch of small ones.
            let rows = a[..a.len() - 1].iter().product();
            let folded = self.reshape([rows, a[a.len() - 1]]).matmul_t(other, false, tb);
            return folded.reshape(a.with(a.len() - 1, folded.shape()[1]));
        }
        Var::record(Prim::MatMul { ta, tb, interleaved: false }, &[self, other])
    }

    /// Products of batches whose axis is the second of three: `[M, B, K] x [K, B, N] -> [M, B, N]`; an operand of rank 2 serves the whole
    /// batch.
    #[track_caller]
    pub(crate) fn matmul_interleaved(self, other: Var<'t>, ta: bool, tb: bool) -> Var<'t> {
        Var::record(Prim::MatMul { ta, tb, interleaved: true }, &[self, other])
    }
}
