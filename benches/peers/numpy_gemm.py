"""Matrix products in f32 with NumPy: gemm/256, gemm/1024, gemm/10x40x40 (m x k x n)."""
from protocol import begin, serve

workload, threads = begin("numpy")
import numpy as np

m, k, n = {"gemm/256": (256,) * 3, "gemm/1024": (1024,) * 3, "gemm/10x40x40": (10, 40, 40)}[workload]
random = np.random.default_rng(0)
a, b = random.random((m, k), dtype=np.float32), random.random((k, n), dtype=np.float32)
out = np.empty((m, n), dtype=np.float32)
serve(f"numpy {np.__version__}", lambda: np.matmul(a, b, out=out))
