"""Second-order MAML on 28x28 images with JAX: maml-omniglot-5w1s/T8, the same work as torch_maml_images.py.

The gradient of a task is compiled once and called for each of them, which is how JAX is fastest here: `scan` over the tasks took about six
times as long on one core, and `vmap` is jax_vmap_maml_images.py.
"""
from protocol import begin, serve

workload, threads = begin("jax", "optax")
import jax
import jax.numpy as jnp
import optax
from jax import lax

{"maml-omniglot-5w1s/T8": True}[workload]
TASKS, WAYS, SHOTS, QUERIES, CHANNELS = 8, 5, 1, 15, 64
key = jax.random.key(0)
theta = []
for block in range(4):
    shape = (3, 3, CHANNELS if block else 1, CHANNELS)
    theta.append(0.05 * jax.random.normal(jax.random.fold_in(key, block), shape))
    theta += [jnp.zeros(CHANNELS), jnp.ones(CHANNELS), jnp.zeros(CHANNELS)]
theta += [0.05 * jax.random.normal(key, (CHANNELS, WAYS)), jnp.zeros(WAYS)]
adam = optax.adam(1e-3)


def images(number):
    return jax.random.uniform(key, (TASKS, WAYS * number, 28, 28, 1))


def labels(number):
    return jnp.tile(jnp.repeat(jnp.arange(WAYS), number), (TASKS, 1))


tasks = (images(SHOTS), labels(SHOTS), images(QUERIES), labels(QUERIES))


def forward(w, x):
    for at in range(0, 16, 4):
        kernel, bias, scale, shift = w[at : at + 4]
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = jax.nn.relu((x - mean) * lax.rsqrt(var + 1e-5) * scale + shift)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(x.shape[0], -1) @ w[16] + w[17]


def loss_of(w, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(forward(w, x), y).mean()


def play(w, support_x, support_y, query_x, query_y):
    fast = [p - 0.4 * g for p, g in zip(w, jax.grad(loss_of)(w, support_x, support_y))]
    return loss_of(fast, query_x, query_y)


task_gradient = jax.jit(jax.grad(play))


@jax.jit
def update(w, state, gradients):
    gradient = jax.tree.map(lambda *g: sum(g) / TASKS, *gradients)
    change, state = adam.update(gradient, state)
    return optax.apply_updates(w, change), state


carried = [theta, adam.init(theta)]


def serve_step(peer, step):
    """Serves `step`, which is given what it carries along."""

    def whole():
        step()
        jax.block_until_ready(carried[0])

    serve(f"jax {jax.__version__} jit, {peer}", whole, warmup=2)


def step():
    gradients = [task_gradient(carried[0], *(part[t] for part in tasks)) for t in range(TASKS)]
    carried[:] = update(*carried, gradients)


if __name__ == "__main__":
    serve_step("a task a call", step)
