#!/usr/bin/env python3
"""Writes a container image as an OCI archive, from files on disk, without a daemon, a network or root.

    hack/mkoci.py OUT.tar IMAGE --entrypoint /app [--user 65532:65532] [--env K=V]... [--label K=V]... ITEM...

An ITEM is PATH=FILE (a file of the image and where it comes from; executable files stay executable) or PATH->TARGET
(a symbolic link). The same input gives the same bytes: no times, no owners, a fixed order. The image has one layer,
with /tmp, /etc/passwd and /etc/group (root and nonroot, 65532) beside the items. `ctr images import`, `docker load`,
`podman load` and `kind load image-archive` read the archive.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile

PASSWD = b"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"
GROUP = b"root:x:0:\nnonroot:x:65532:\n"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def full_name(image):
    """The name a container runtime looks an image up by: `a:1` means docker.io/library/a:1."""
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag:
        sys.exit(f"mkoci: {image}: an image name needs a tag")
    host, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{image}"
    return image if "." in host or ":" in host or host == "localhost" else f"docker.io/{image}"


class Layer:
    """A file system as a tar stream. Folders come before what lies in them."""

    def __init__(self):
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w", format=tarfile.PAX_FORMAT)
        self.folders = set()

    def folder(self, path, mode=0o755):
        """Adds a folder and the ones above it, each once."""
        if not path or path in self.folders:
            return
        self.folder(os.path.dirname(path))
        self.folders.add(path)
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self.tar.addfile(entry)

    def file(self, path, content, mode=0o644):
        self.folder(os.path.dirname(path))
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(content), mode
        self.tar.addfile(entry, io.BytesIO(content))

    def link(self, path, target):
        self.folder(os.path.dirname(path))
        entry = tarfile.TarInfo(path)
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
        self.tar.addfile(entry)

    def item(self, item):
        """Adds what one ITEM of the command line says."""
        path, arrow, target = item.partition("->")
        if arrow:
            self.link(path.lstrip("/"), target)
            return
        path, equals, source = item.partition("=")
        if not equals:
            sys.exit(f"mkoci: {item}: neither PATH=FILE nor PATH->TARGET")
        with open(source, "rb") as file:
            mode = 0o755 if os.access(source, os.X_OK) else 0o644
            self.file(path.lstrip("/"), file.read(), mode)

    def close(self):
        self.tar.close()
        return self.bytes.getvalue()


class Blobs(dict):
    """The content of an archive by its digest."""

    def add(self, media_type, content):
        digest = hashlib.sha256(content).hexdigest()
        self[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def pairs(values):
    return dict(value.split("=", 1) for value in values)


def build_layer(items):
    layer = Layer()
    layer.folder("tmp", 0o1777)
    layer.file("etc/passwd", PASSWD)
    layer.file("etc/group", GROUP)
    for item in items:
        layer.item(item)
    return layer.close()


def image_config(args, layer):
    config = {"Env": [f"{key}={value}" for key, value in ({"PATH": "/bin"} | pairs(args.env)).items()]}
    config |= {"Entrypoint": args.entrypoint.split(), "User": args.user, "WorkingDir": "/"}
    if args.label:
        config["Labels"] = pairs(args.label)
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    root = {"type": "layers", "diff_ids": [diff_id]}
    return {"architecture": args.arch, "os": "linux", "config": config, "rootfs": root}


def build_archive(args):
    """The files of the archive: the OCI layout, and manifest.json for readers that know only Docker's."""
    layer = build_layer(args.item)
    blobs = Blobs()
    config = blobs.add(CONFIG_TYPE, json.dumps(image_config(args, layer)).encode())
    # The lowest level: images are made often, here, and read on the same machine.
    layers = [blobs.add(LAYER_TYPE, gzip.compress(layer, compresslevel=1, mtime=0))]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
    entry = blobs.add(MANIFEST_TYPE, json.dumps(manifest).encode())
    name = full_name(args.image)
    entry["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    path = lambda blob: "blobs/sha256/" + blob["digest"].removeprefix("sha256:")
    docker = [{"Config": path(config), "RepoTags": [name], "Layers": [path(layer) for layer in layers]}]
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        "manifest.json": json.dumps(docker).encode(),
    }
    return files | {f"blobs/sha256/{digest}": blobs[digest] for digest in sorted(blobs)}


def write_archive(out, files):
    """Written beside the target and renamed: nobody reads half an image."""
    with tarfile.open(out + ".new", "w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    os.replace(out + ".new", out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("image")
    parser.add_argument("item", nargs="*")
    parser.add_argument("--entrypoint", required=True, help="command, split at spaces")
    parser.add_argument("--user", default="0:0")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--label", action="append", default=[])
    parser.add_argument("--arch", default=ARCHITECTURES.get(platform.machine(), platform.machine()))
    args = parser.parse_intermixed_args()
    write_archive(args.out, build_archive(args))


if __name__ == "__main__":
    main()
