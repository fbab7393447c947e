"""Second-order MAML on sine waves, PyTorch at its best: `torch.func.grad` under `vmap` over the tasks.

The same work as torch_maml_sinusoid.py: maml-sinusoid/1step, maml-sinusoid/5step.
"""
from protocol import begin, serve

workload, threads = begin("torch")
import torch
from torch.func import grad, vmap
from torch.nn.functional import linear, mse_loss, relu

torch.set_num_threads(threads)
torch.manual_seed(0)
inner_steps = {"maml-sinusoid/1step": 1, "maml-sinusoid/5step": 5}[workload]
TASKS, POINTS = 25, 10
theta = [
    torch.nn.Parameter(0.3 * torch.randn(shape)) for shape in ((40, 1), (40,), (40, 40), (40,), (1, 40), (1,))
]
adam = torch.optim.Adam(theta, lr=1e-3)
tasks = [torch.randn(TASKS, POINTS, 1) for _ in range(4)]


def forward(w, x):
    return linear(relu(linear(relu(linear(x, w[0], w[1])), w[2], w[3])), w[4], w[5])


def loss_of(w, x, y):
    return mse_loss(forward(w, x), y)


def play(w, support_x, support_y, query_x, query_y):
    for _ in range(inner_steps):
        w = [p - 0.01 * g for p, g in zip(w, grad(loss_of)(w, support_x, support_y))]
    return loss_of(w, query_x, query_y)


def meta_loss(w, *tasks):
    return vmap(play, in_dims=(None, 0, 0, 0, 0))(w, *tasks).mean()


def step():
    for p, g in zip(theta, grad(meta_loss)(list(theta), *tasks)):
        p.grad = g
    adam.step()


serve(f"torch {torch.__version__} func+vmap", step)
