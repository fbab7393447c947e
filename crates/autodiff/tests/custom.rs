//! A user's own primitive, with its own kernel and its own gradient rule.

use std::sync::Arc;

use metaforge_autodiff::{
    Arg, Aval, Custom, CustomPrim, Key, Prim, Program, Slice, SliceMut, Tape, Tensor, Var, View, check_grads, grad,
    vmap,
};

/// x^2 sin(x), with its gradient in ordinary operations.
#[derive(Debug)]
struct Wave;

impl Custom for Wave {
    fn name(&self) -> &str {
        "wave"
    }

    fn shape(&self, inputs: &[Aval]) -> Result<Aval, String> {
        match inputs {
            [x] if x.dtype.is_float() => Ok(*x),
            _ => Err("one floating-point operand".into()),
        }
    }

    fn eval(&self, inputs: &[View<'_>], out: SliceMut<'_>) {
        match (inputs[0].data, out) {
            (Slice::F32(x), SliceMut::F32(out)) => out.iter_mut().zip(x).for_each(|(o, x)| *o = x * x * x.sin()),
            (Slice::F64(x), SliceMut::F64(out)) => out.iter_mut().zip(x).for_each(|(o, x)| *o = x * x * x.sin()),
            _ => unreachable!("the shape rule admits one type"),
        }
    }

    fn vjp<'t>(&self, inputs: &[Var<'t>], _: Var<'t>, g: Var<'t>) -> Vec<Option<Var<'t>>> {
        let x = inputs[0];
        vec![Some(g * (x * x.sin() * 2.0 + x * x * x.cos()))]
    }
}

fn wave(x: Var<'_>) -> Var<'_> {
    thread_local!(static WAVE: Arc<Wave> = Arc::new(Wave));
    Var::record(Prim::Custom(CustomPrim(WAVE.with(Clone::clone))), &[x])
}

#[test]
fn gradcheck_of_a_custom_primitive() {
    let x = Tensor::from_f64([4], vec![0.3, -1.2, 0.9, 2.0]);
    check_grads(|x| vec![wave(x[0])], &[x], 3, 1e-7, Key::new(1)).unwrap();
}

#[test]
fn a_custom_primitive_is_mapped_over() {
    let tape = Tape::eager();
    let x = Tensor::from_f64([3, 2], vec![0.3, -1.2, 0.9, 2.0, 1.4, -0.1]);
    let all = tape.var(&x);
    let each = vmap(&[Arg::Each(all)], |_, v| vec![wave(v[0]), grad(wave(v[0]).sum(), v)[0]]);
    let alone = tape.var(&x);
    let slope = grad(wave(alone).sum(), &[alone])[0];
    assert_eq!(each[0].stacked().value(), wave(alone).value());
    assert_eq!(each[1].stacked().value(), slope.value());
    assert_eq!(grad(each[0].sum().sum(), &[all])[0].value(), slope.value());
}

#[test]
fn a_custom_primitive_runs_in_a_program() {
    let x = Tensor::new([3], vec![0.5, 1.0, 1.5]);
    let f = |x: &Tensor| {
        let tape = Tape::eager();
        let x = tape.var(x);
        grad(wave(x).sum(), &[x])[0].value()
    };
    let program = Program::trace(&[x.aval()], |_, x| grad((wave(x[0]) + wave(x[0]) * 0.0).sum(), &[x[0]]));
    assert_eq!(program.call(&[&x])[0], f(&x));
}

#[test]
#[should_panic(expected = "wave(u32[2]): one floating-point operand")]
fn its_shape_rule_speaks() {
    wave(Tape::eager().constant(&Tensor::from_u32([2], vec![1, 2])));
}
