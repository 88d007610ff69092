"""Small archives made in memory, and what is unpacked from them."""

import io
import random
import tarfile
import zipfile
from pathlib import Path

KINDS = ("zip", "tar", "tar.gz")


def made(count: int, size: int = 1500) -> dict[str, bytes]:
    draw = random.Random(2)
    return {f"things/{'ab'[i % 2]}/{i:03d}.bin": draw.randbytes(draw.randrange(size)) for i in range(count)}


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(f"top/{name}", data)
    else:
        with tarfile.open(fileobj=out, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(f"top/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def visible(folder: Path) -> list[str]:
    """Files below, hidden ones (and all below a hidden folder) left out."""
    names = (f.relative_to(folder) for f in folder.rglob("*") if f.is_file())
    return sorted(str(name) for name in names if not any(part[0] == "." for part in name.parts))


def holds(folder: Path, files: dict[str, bytes]) -> bool:
    return visible(folder) == sorted(files) and all((folder / name).read_bytes() == files[name] for name in files)
