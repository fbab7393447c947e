//! The workloads that are timed, by name: each is one step of the work, with the batches of a training drawn beside it.

use std::time::Duration;

use metaforge_autodiff::{Aval, Key, Par, Program, Tensor, Var, Workspace};
use metaforge_gan::GanTrainer;
use metaforge_kernels::{MatMulDims, matmul};
use metaforge_meta::{MetaTrainer, Order};
use metaforge_nn::{Mode, Model, Params};

use crate::games::{dcgan28, seed_gan, wgan_gp_critic};
use crate::learners::{maml_images, maml_sinusoid, proto_eval, proto_images};
use crate::{Numbers, noise, norm, nothings};

/// What is timed under one name.
pub struct Workload {
    /// Its name on the command line and in the tables.
    pub name: &'static str,
    /// The scripts in `benches/peers` that do the same work.
    pub peers: &'static [&'static str],
    /// Sets it up.
    pub start: fn() -> Box<dyn Work>,
}

/// A piece of work that can be repeated.
pub trait Work: Send {
    /// Does it once. Fails if a loss is no longer finite.
    fn step(&mut self) -> Result<(), String>;

    /// Floating-point operations of one step, as [`Program::flops`] counts them.
    fn flops(&self) -> u64;

    /// What is profiled, and what each of its instructions takes on the threads that a step gives them.
    fn profile(&mut self) -> (String, Vec<(String, Duration)>);
}

/// All of them, in the order in which they run.
pub const WORKLOADS: [Workload; 19] = [
    Workload {
        name: "gemm/256",
        peers: &["numpy_gemm.py", "torch_gemm.py"],
        start: || Box::new(Product::new(256, 256, 256)),
    },
    Workload {
        name: "gemm/1024",
        peers: &["numpy_gemm.py", "torch_gemm.py"],
        start: || Box::new(Product::new(1024, 1024, 1024)),
    },
    Workload {
        name: "gemm/10x40x40",
        peers: &["numpy_gemm.py", "torch_gemm.py"],
        start: || Box::new(Product::new(10, 40, 40)),
    },
    Workload {
        name: "maml-sinusoid/1step",
        peers: &["torch_maml_sinusoid.py", "torch_func_maml_sinusoid.py", "jax_maml_sinusoid.py"],
        start: || Box::new(Batch(maml_sinusoid(1), 25)),
    },
    Workload {
        name: "maml-sinusoid/5step",
        peers: &["torch_maml_sinusoid.py", "torch_func_maml_sinusoid.py", "jax_maml_sinusoid.py"],
        start: || Box::new(Batch(maml_sinusoid(5), 25)),
    },
    Workload {
        name: "maml-omniglot-5w1s/T8",
        peers: &["torch_maml_images.py", "jax_maml_images.py", "jax_vmap_maml_images.py"],
        start: || Box::new(Batch(maml_images(Order::Second, 1, false, 8), 8)),
    },
    Workload {
        name: "maml-omniglot-5w1s/5step",
        peers: &[],
        start: || Box::new(Batch(maml_images(Order::Second, 5, false, 8), 8)),
    },
    Workload {
        name: "maml-omniglot-5w1s/5step-remat",
        peers: &[],
        start: || Box::new(Batch(maml_images(Order::Second, 5, true, 8), 8)),
    },
    Workload {
        name: "fomaml-omniglot-5w1s/T8",
        peers: &["torch_maml_images.py"],
        start: || Box::new(Batch(maml_images(Order::First, 1, false, 8), 8)),
    },
    Workload {
        name: "proto/60w5s5q",
        peers: &["torch_proto.py"],
        start: || Box::new(Batch(proto_images(60, 5, 5), 1)),
    },
    Workload {
        name: "proto/5w1s15q",
        peers: &["torch_proto.py"],
        start: || Box::new(Batch(proto_images(5, 1, 15), 1)),
    },
    Workload { name: "proto-eval/5w1s15q", peers: &["torch_proto.py"], start: || Box::new(proto_eval()) },
    Workload {
        name: "seed-gan/B32",
        peers: &["torch_gan.py", "tensorflow_seed_gan.py"],
        start: || Box::new(seed_gan()),
    },
    Workload { name: "dcgan28/B64", peers: &["torch_gan.py"], start: || Box::new(dcgan28()) },
    Workload { name: "wgan-gp-critic/B64", peers: &["torch_gan.py"], start: || Box::new(wgan_gp_critic()) },
    Workload { name: "batch-norm/forward", peers: &[], start: || Box::new(norm::forward()) },
    Workload { name: "batch-norm/backward", peers: &[], start: || Box::new(norm::backward()) },
    Workload { name: "batch-norm/double-backward", peers: &[], start: || Box::new(norm::double_backward()) },
    Workload { name: "program/400-nothings", peers: &[], start: || Box::new(nothings::nothings(400)) },
];

/// A matrix product `[m, k] x [k, n]` in f32.
struct Product {
    dims: MatMulDims,
    a: Numbers,
    b: Numbers,
    out: Numbers,
}

impl Product {
    fn new(m: usize, k: usize, n: usize) -> Product {
        let dims = MatMulDims::new(m, n, k);
        Product { dims, a: noise(m * k), b: noise(k * n), out: noise(m * n) }
    }
}

impl Work for Product {
    fn step(&mut self) -> Result<(), String> {
        matmul(Par::Rayon, &self.dims, &self.a, &self.b, &mut self.out);
        std::hint::black_box(&mut self.out);
        Ok(())
    }

    fn flops(&self) -> u64 {
        2 * (self.dims.m * self.dims.n * self.dims.k) as u64
    }

    fn profile(&mut self) -> (String, Vec<(String, Duration)>) {
        let start = std::time::Instant::now();
        matmul(Par::Rayon, &self.dims, &self.a, &self.b, &mut self.out);
        ("the product".into(), vec![("MatMul".into(), start.elapsed())])
    }
}

/// A trainer and the number of tasks of its steps.
struct Batch(MetaTrainer, u64);

impl Work for Batch {
    fn step(&mut self) -> Result<(), String> {
        self.0.step().map(drop).map_err(|e| e.to_string())
    }

    fn flops(&self) -> u64 {
        self.1 * self.0.program().flops()
    }

    fn profile(&mut self) -> (String, Vec<(String, Duration)>) {
        match self.0.profile() {
            (1, told) => ("a task".into(), told),
            (tasks, told) => (format!("{tasks} tasks"), told),
        }
    }
}

/// The discriminator moves once a step.
impl Work for GanTrainer {
    fn step(&mut self) -> Result<(), String> {
        GanTrainer::step(self).map(drop).map_err(|e| e.to_string())
    }

    fn flops(&self) -> u64 {
        self.programs().iter().map(|p| p.flops()).sum()
    }

    fn profile(&mut self) -> (String, Vec<(String, Duration)>) {
        ("both moves".into(), GanTrainer::profile(self))
    }
}

/// A program that is run again and again: its first inputs are carried from step to step, its first outputs are their new values. The other
/// inputs are fixed or drawn anew for each step, while the step before it runs.
pub struct Repeated {
    program: Program,
    workspace: Workspace,
    carried: Params,
    fixed: Vec<Tensor>,
    draw: fn(u64) -> Vec<Tensor>,
    drawn: Vec<Tensor>,
    steps: u64,
}

impl Repeated {
    /// Compiles a step. It is given the variables of each of the `carried` parts and, as the last part, those of `fixed` and of what `draw`
    /// gives for the number of a step; it returns the new values of all that is carried, and then what is to be computed besides.
    pub fn new<F>(carried: &[Params], fixed: Vec<Tensor>, draw: fn(u64) -> Vec<Tensor>, step: F) -> Repeated
    where
        F: for<'t> FnOnce(&[&[Var<'t>]]) -> Vec<Var<'t>>,
    {
        let drawn = draw(0);
        let inputs: Vec<Aval> =
            carried.iter().flat_map(Params::avals).chain(fixed.iter().chain(&drawn).map(Tensor::aval)).collect();
        let program = Program::trace(&inputs, |_, mut rest| {
            let mut parts = Vec::new();
            for part in carried {
                let (here, after) = rest.split_at(part.len());
                parts.push(here);
                rest = after;
            }
            parts.push(rest);
            step(&parts)
        });
        let mut all = Params::new();
        for (i, part) in carried.iter().enumerate() {
            all.extend(part.prefixed(&i.to_string()));
        }
        Repeated { workspace: program.workspace(), program, carried: all, fixed, draw, drawn, steps: 0 }
    }
}

/// A model, applied to the first of `inputs` again and again. `f` is given its result, its parameters and the inputs, and gives what is to be
/// computed, a number or a few last.
pub fn applied<F>(model: &Model, mode: Mode, inputs: Vec<Tensor>, f: F) -> Repeated
where
    F: for<'t> FnOnce(Var<'t>, &[Var<'t>], &[Var<'t>]) -> Vec<Var<'t>>,
{
    let (params, state) = (model.init(Key::new(0)), model.init_state());
    let fixed = params.tensors().iter().chain(state.tensors()).cloned().chain(inputs).collect();
    Repeated::new(
        &[],
        fixed,
        |_| Vec::new(),
        |parts| {
            let (weights, rest) = parts[0].split_at(params.len());
            let (state, inputs) = rest.split_at(state.len());
            f(model.apply(weights, state, inputs[0], mode, None).0, weights, inputs)
        },
    )
}

impl Work for Repeated {
    fn step(&mut self) -> Result<(), String> {
        let Repeated { program, workspace, carried, fixed, draw, drawn, steps } = self;
        let inputs: Vec<&Tensor> = carried.tensors().iter().chain(&*fixed).chain(&*drawn).collect();
        let ((), next) = rayon::join(|| program.run(workspace, &inputs, Par::Rayon), || draw(*steps + 1));
        carried.update_from(program, workspace, 0);
        (*drawn, *steps) = (next, *steps + 1);
        let last = program.output(workspace, program.outputs().len() - 1).to_tensor();
        if last.is_finite() { Ok(()) } else { Err(format!("step {steps} is not finite")) }
    }

    fn flops(&self) -> u64 {
        self.program.flops()
    }

    fn profile(&mut self) -> (String, Vec<(String, Duration)>) {
        let inputs: Vec<&Tensor> = self.carried.tensors().iter().chain(&self.fixed).chain(&self.drawn).collect();
        ("a step".into(), self.program.run_timed(&mut self.workspace, &inputs, Par::Rayon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn names_are_unique_and_every_peer_has_its_script() {
        for (i, workload) in WORKLOADS.iter().enumerate() {
            assert!(WORKLOADS[..i].iter().all(|w| w.name != workload.name), "{}", workload.name);
            for script in workload.peers {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                assert!(text.contains(workload.name), "{} does not know {}", path.display(), workload.name);
            }
        }
    }

    #[test]
    fn a_product_counts_its_multiply_adds() {
        assert_eq!(Product::new(10, 40, 40).flops(), 32_000);
    }

    #[test]
    fn what_is_carried_goes_on() {
        let carried: Params = [("sum".to_string(), Tensor::new([2], vec![0.0; 2]))].into_iter().collect();
        let fixed = vec![Tensor::new([2], vec![1.0, 10.0])];
        let draw = |n| vec![Tensor::new([2], vec![n as f32; 2])];
        let mut work = Repeated::new(&[carried], fixed, draw, |parts| {
            let (sum, rest) = (parts[0][0], parts[1]);
            vec![sum + rest[0] * rest[1], sum.sum()]
        });
        for _ in 0..4 {
            work.step().unwrap();
        }
        assert_eq!(work.carried.tensors()[0].f32s(), [6.0, 60.0]);
        assert_eq!(work.profile().1.len(), work.program.len());
    }
}
