"""Adversarial games on 28x28 images with PyTorch.

seed-gan/B32: dense generator 100-128-128-784, discriminator of three convolutions of stride 2; both steps, Adam 2e-4.
dcgan28/B64: the same discriminator against a generator of transposed convolutions with batch norm; both steps.
wgan-gp-critic/B64: the critic's step with gradient penalty 10 on the nets of dcgan28, Adam 1e-4.
"""
from protocol import begin, serve

workload, threads = begin("torch")
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

torch.set_num_threads(threads)
torch.manual_seed(0)
batch = {"seed-gan/B32": 32, "dcgan28/B64": 64, "wgan-gp-critic/B64": 64}[workload]


def discriminator():
    layers, channels = [], 1
    for out in (64, 128, 256):
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 4 * 4, 1))


def dense_generator():
    hidden = (nn.Linear(100, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(128, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))


def convolutional_generator():
    def up(channels, out):
        return nn.BatchNorm2d(channels), nn.ReLU(), nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1)

    base = (nn.Linear(100, 256 * 49), nn.Unflatten(1, (256, 7, 7)))
    end = (nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 1, 3, padding=1), nn.Sigmoid())
    return nn.Sequential(*base, *up(256, 128), *up(128, 64), *end)


G = dense_generator() if workload == "seed-gan/B32" else convolutional_generator()
D = discriminator()
real = torch.rand(batch, 1, 28, 28)
one, zero = torch.ones(batch, 1), torch.zeros(batch, 1)


def game():
    of_g, of_d = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (G, D))

    def step():
        fake = G(torch.randn(batch, 100))
        of_d.zero_grad()
        (bce(D(real), one) + bce(D(fake.detach()), zero)).backward()
        of_d.step()
        of_g.zero_grad()
        bce(D(fake), one).backward()
        of_g.step()

    return step


def critic():
    of_d = torch.optim.Adam(D.parameters(), 1e-4, (0.5, 0.9))

    def step():
        with torch.no_grad():
            fake = G(torch.randn(batch, 100))
        mix = torch.rand(batch, 1, 1, 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
        penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        of_d.zero_grad()
        (D(fake).mean() - D(real).mean() + 10 * penalty).backward()
        of_d.step()

    return step


step = critic() if workload == "wgan-gp-critic/B64" else game()
serve(f"torch {torch.__version__} eager", step, warmup=2)
