"""MAML on 28x28 images with PyTorch: a loop over 8 tasks, 5-way 1-shot, 15 queries a class, one inner step of 0.4, Adam 1e-3.

Conv4-64 with batch norm by batch statistics and 2x2 max-pooling. Second order: maml-omniglot-5w1s/T8; first order:
fomaml-omniglot-5w1s/T8.
"""
from protocol import begin, serve

workload, threads = begin("torch")
import torch
from torch.nn.functional import batch_norm, conv2d, cross_entropy, linear, max_pool2d, relu

torch.set_num_threads(threads)
torch.manual_seed(0)
second_order = {"maml-omniglot-5w1s/T8": True, "fomaml-omniglot-5w1s/T8": False}[workload]
TASKS, WAYS, SHOTS, QUERIES, CHANNELS = 8, 5, 1, 15, 64


def initial():
    """For each block a kernel, its bias, scale and shift; then the classifier."""
    for block in range(4):
        yield 0.05 * torch.randn(CHANNELS, CHANNELS if block else 1, 3, 3)
        yield torch.zeros(CHANNELS)
        yield torch.ones(CHANNELS)
        yield torch.zeros(CHANNELS)
    yield 0.05 * torch.randn(WAYS, CHANNELS)
    yield torch.zeros(WAYS)


theta = [torch.nn.Parameter(p) for p in initial()]
adam = torch.optim.Adam(theta, lr=1e-3)
support_x, query_x = torch.rand(TASKS, WAYS * SHOTS, 1, 28, 28), torch.rand(TASKS, WAYS * QUERIES, 1, 28, 28)
support_y, query_y = torch.arange(WAYS).repeat_interleave(SHOTS), torch.arange(WAYS).repeat_interleave(QUERIES)


def forward(w, x):
    for at in range(0, 16, 4):
        kernel, bias, scale, shift = w[at : at + 4]
        x = batch_norm(conv2d(x, kernel, bias, padding=1), None, None, scale, shift, training=True)
        x = max_pool2d(relu(x), 2)
    return linear(x.flatten(1), w[16], w[17])


def step():
    adam.zero_grad()
    for t in range(TASKS):
        loss = cross_entropy(forward(theta, support_x[t]), support_y)
        gradient = torch.autograd.grad(loss, theta, create_graph=second_order)
        fast = [w - 0.4 * g for w, g in zip(theta, gradient)]
        (cross_entropy(forward(fast, query_x[t]), query_y) / TASKS).backward()
    adam.step()


serve(f"torch {torch.__version__} eager", step, warmup=2)
