"""Second-order MAML on sine waves, JAX: one compiled step, `vmap` over the tasks.

The same work as torch_maml_sinusoid.py: maml-sinusoid/1step, maml-sinusoid/5step.
"""
import os

from protocol import begin, serve

workload, threads = begin("jax", "optax")
os.environ["XLA_FLAGS"] = (
    f"--xla_cpu_multi_thread_eigen={str(threads != 1).lower()} intra_op_parallelism_threads={threads}"
)
import jax
import jax.numpy as jnp
import optax

inner_steps = {"maml-sinusoid/1step": 1, "maml-sinusoid/5step": 5}[workload]
TASKS, POINTS = 25, 10
shapes = ((1, 40), (40,), (40, 40), (40,), (40, 1), (1,))
key = jax.random.key(0)
theta = [0.3 * jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key, 6), shapes)]
tasks = [jax.random.normal(k, (TASKS, POINTS, 1)) for k in jax.random.split(key, 4)]
adam = optax.adam(1e-3)


def loss_of(w, x, y):
    h = jax.nn.relu(x @ w[0] + w[1])
    h = jax.nn.relu(h @ w[2] + w[3])
    return jnp.mean((h @ w[4] + w[5] - y) ** 2)


def play(w, support_x, support_y, query_x, query_y):
    for _ in range(inner_steps):
        w = [p - 0.01 * g for p, g in zip(w, jax.grad(loss_of)(w, support_x, support_y))]
    return loss_of(w, query_x, query_y)


def meta_loss(w, tasks):
    return jnp.mean(jax.vmap(play, (None, 0, 0, 0, 0))(w, *tasks))


@jax.jit
def update(w, state, tasks):
    change, state = adam.update(jax.grad(meta_loss)(w, tasks), state)
    return optax.apply_updates(w, change), state


carried = [theta, adam.init(theta)]


def step():
    carried[:] = update(*carried, tasks)
    jax.block_until_ready(carried[0])


serve(f"jax {jax.__version__} jit+vmap", step)
