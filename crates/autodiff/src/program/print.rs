//! A program as readable text.

use std::fmt;

use super::{Operand, Place, Program};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, aval) in self.inputs.iter().enumerate() {
            writeln!(f, "in{i}: {aval}")?;
        }
        for (i, value) in self.consts.iter().enumerate() {
            writeln!(f, "const{i}: {value:?}")?;
        }
        for (i, instr) in self.instrs.iter().enumerate() {
            let ins: Vec<String> = instr.ins.iter().map(Operand::to_string).collect();
            let here = if instr.in_place { "  (in place)" } else { "" };
            writeln!(f, "%{i}: {} = {}({})  @{}{here}", instr.aval, instr.prim, ins.join(", "), instr.span.start)?;
        }
        let outputs: Vec<String> = self.outputs.iter().map(|i| format!("%{i}")).collect();
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
        }
    }
}
