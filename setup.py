"""The compiled twin of the gateway's dearest functions. All else that is to be said of the package is in pyproject.toml.

Without a C compiler the installation goes on, and Python does the same work (`docs/benchmarks.md` says at which price).
"""

from setuptools import Extension, setup

HERE = "src/penstock/_speed"

setup(
    ext_modules=[
        Extension(
            "penstock._speed.native",
            [f"{HERE}/{name}.c" for name in ("module", "accessline", "heads", "signature", "sha256", "tokens")],
            depends=[f"{HERE}/native.h"],
            extra_compile_args=["-O2", "-fvisibility=hidden"],
            optional=True,
        )
    ]
)
