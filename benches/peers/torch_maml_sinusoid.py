"""Second-order MAML on sine waves, PyTorch as one writes it: a loop over the tasks, `autograd.grad` with a graph.

An MLP 1-40-40-1, 10 support and 10 query points, 25 tasks, inner rate 0.01, Adam 1e-3:
maml-sinusoid/1step, maml-sinusoid/5step.
"""
from protocol import begin, serve

workload, threads = begin("torch")
import torch
from torch.nn.functional import linear, mse_loss, relu

torch.set_num_threads(threads)
torch.manual_seed(0)
inner_steps = {"maml-sinusoid/1step": 1, "maml-sinusoid/5step": 5}[workload]
TASKS, POINTS = 25, 10
theta = [
    torch.nn.Parameter(0.3 * torch.randn(shape)) for shape in ((40, 1), (40,), (40, 40), (40,), (1, 40), (1,))
]
adam = torch.optim.Adam(theta, lr=1e-3)
support_x, support_y, query_x, query_y = (torch.randn(TASKS, POINTS, 1) for _ in range(4))


def forward(w, x):
    return linear(relu(linear(relu(linear(x, w[0], w[1])), w[2], w[3])), w[4], w[5])


def step():
    adam.zero_grad()
    total = 0.0
    for t in range(TASKS):
        fast = theta
        for _ in range(inner_steps):
            loss = mse_loss(forward(fast, support_x[t]), support_y[t])
            gradient = torch.autograd.grad(loss, fast, create_graph=True)
            fast = [w - 0.01 * g for w, g in zip(fast, gradient)]
        total = total + mse_loss(forward(fast, query_x[t]), query_y[t])
    (total / TASKS).backward()
    adam.step()


serve(f"torch {torch.__version__} eager", step)
