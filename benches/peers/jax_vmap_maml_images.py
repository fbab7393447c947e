"""Second-order MAML on 28x28 images with JAX as its documentation writes it, `vmap` over the tasks: maml-omniglot-5w1s/T8.

Each task has weights of its own, so the convolutions become grouped ones; jax_maml_images.py is the fastest form that was found.
"""
# First of all, because it says how many threads there are before JAX is imported.
from jax_maml_images import adam, carried, play, serve_step, tasks

import jax
import optax


@jax.jit
def whole_step(w, state):
    def loss(w):
        return jax.vmap(play, (None, 0, 0, 0, 0))(w, *tasks).mean()

    change, state = adam.update(jax.grad(loss)(w), state)
    return optax.apply_updates(w, change), state


def step():
    carried[:] = whole_step(*carried)


serve_step("vmap over the tasks", step)
