"""Prototypical networks on 28x28 images with PyTorch: Conv4-64 with batch norm and 2x2 max-pooling.

A training step with Adam 1e-3 on one episode: proto/60w5s5q, proto/5w1s15q. In use, by running statistics: proto-eval/5w1s15q.
"""
from protocol import begin, serve

workload, threads = begin("torch")
import torch
from torch import nn
from torch.nn.functional import cross_entropy

torch.set_num_threads(threads)
torch.manual_seed(0)
ways, shots, queries, training = {
    "proto/60w5s5q": (60, 5, 5, True),
    "proto/5w1s15q": (5, 1, 15, True),
    "proto-eval/5w1s15q": (5, 1, 15, False),
}[workload]


def block(channels):
    return nn.Sequential(nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))


net = nn.Sequential(block(1), block(64), block(64), block(64), nn.Flatten()).train(training)
adam = torch.optim.Adam(net.parameters(), 1e-3)
images = torch.rand(ways * (shots + queries), 1, 28, 28)
labels = torch.arange(ways).repeat_interleave(queries)


def distances():
    z = net(images)
    prototypes = z[: ways * shots].view(ways, shots, -1).mean(1)
    return torch.cdist(z[ways * shots :], prototypes)


def train():
    adam.zero_grad()
    cross_entropy(-(distances() ** 2), labels).backward()
    adam.step()


@torch.no_grad()
def use():
    return distances().argmin(1)


serve(f"torch {torch.__version__} eager", train if training else use, warmup=2)
