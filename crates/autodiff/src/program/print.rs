//! A program as readable text.

use std::fmt;

use metaforge_kernels::MatMulDims;

use super::fused::{shown, shown_sum};
use super::graph::Op;
use super::{Operand, Place, Program};
use crate::aval::Aval;
use crate::prim::Prim;

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, aval) in self.inputs.iter().enumerate() {
            writeln!(f, "in{i}: {aval}")?;
        }
        for (i, value) in self.consts.iter().enumerate() {
            writeln!(f, "const{i}: {value:?}")?;
        }
        for (i, conv) in self.on_demand.iter().enumerate() {
            writeln!(f, "conv{i} = {:?}({}, {})  on demand", conv.dims, conv.image, conv.weights)?;
        }
        for instr in &self.instrs {
            let ins: Vec<String> = instr.ins.iter().map(Operand::to_string).collect();
            let outs: Vec<String> = instr.outs.iter().map(|i| format!("%{i}: {}", self.values[*i].aval)).collect();
            let here = if instr.in_place { "  (in place)" } else { "" };
            let starts: Vec<String> = instr.spans.iter().map(|span| format!("@{}", span.start)).collect();
            writeln!(f, "{} = {}({})  {}{here}", outs.join(", "), instr.op, ins.join(", "), starts.join(" "))?;
            let passes = match &instr.op {
                Op::Fused { passes, .. } => &passes[..],
                Op::FusedConv { fusion, .. } | Op::FusedWeightGrad { fusion, .. } => {
                    std::slice::from_ref(fusion.as_ref())
                }
                Op::Prim(_)
                | Op::Statistics { .. }
                | Op::ConvStatistics { .. }
                | Op::Coefficients { .. }
                | Op::Product { .. }
                | Op::Step(_) => &[],
            };
            for fusion in passes {
                fusion.steps().iter().try_for_each(|step| writeln!(f, "    {}", shown(step)))?;
                fusion.sums().iter().try_for_each(|sum| writeln!(f, "    {}", shown_sum(sum)))?;
            }
        }
        let output = |&(i, aval): &(usize, Aval)| match self.values[i].aval == aval {
            true => format!("%{i}"),
            false => format!("%{i} as {aval}"),
        };
        let outputs: Vec<String> = self.outputs.iter().map(output).collect();
        writeln!(f, "return {}", outputs.join(", "))?;
        write!(f, "arena: {} bytes", self.workspace_bytes())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Input(i) => write!(f, "in{i}"),
            Place::Const(i) => write!(f, "const{i}"),
            Place::Value(i) => write!(f, "%{i}"),
            Place::OnDemand(i) => write!(f, "conv{i}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Prim(prim) => prim.fmt(f),
            Op::Statistics { .. } => f.write_str("Statistics"),
            Op::ConvStatistics { .. } => f.write_str("Conv, with statistics"),
            Op::Coefficients { .. } => f.write_str("Coefficients"),
            Op::Product { dims, ending } => {
                let &MatMulDims { ta, tb, interleaved, .. } = dims.as_ref();
                Prim::MatMul { ta, tb, interleaved }.fmt(f)?;
                let base = ending.base.map(|base| if base.minus { ", Sub" } else { ", Add" });
                f.write_str(ending.affine.map_or("", |_| ", Affine"))?;
                f.write_str(base.unwrap_or_default())?;
                f.write_str(if ending.relu { ", Relu" } else { "" })
            }
            Op::Step(op) => write!(f, "{op:?}"),
            Op::Fused { passes, .. } => {
                let lengths = passes.iter().map(|fusion| (fusion.steps().len() + fusion.sums().len()).to_string());
                write!(f, "Fused[{}]", lengths.collect::<Vec<_>>().join("+"))
            }
            Op::FusedConv { fusion, at, .. } => write!(f, "Conv, as in{at} of Fused[{}]", fusion.steps().len()),
            Op::FusedWeightGrad { fusion, .. } => write!(f, "ConvWeightGrad of Fused[{}]", fusion.steps().len()),
        }
    }
}
