"""Matrix products in f32 with PyTorch: gemm/256, gemm/1024, gemm/10x40x40 (m x k x n)."""
from protocol import begin, serve

workload, threads = begin("torch")
import torch

torch.set_num_threads(threads)
m, k, n = {"gemm/256": (256,) * 3, "gemm/1024": (1024,) * 3, "gemm/10x40x40": (10, 40, 40)}[workload]
a, b, out = torch.rand(m, k), torch.rand(k, n), torch.empty(m, n)
serve(f"torch {torch.__version__}", lambda: torch.mm(a, b, out=out))
