"""Writes an image as one tar that is an OCI layout and what `docker save` writes at the same time: `ctr images
import`, `docker load`, `podman load` and `kind load image-archive` all take it. The same input gives the same
bytes."""

import gzip
import hashlib
import io
import json
import tarfile


class Layer:
    def __init__(self, tree, base, mtime, why):
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tree.write(tar, base, mtime)
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as out:
            out.write(plain.getvalue())
        self.why, self.data = why, packed.getvalue()
        self.diff_id = "sha256:" + hashlib.sha256(plain.getvalue()).hexdigest()
        self.size_plain = len(plain.getvalue())


def _json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Blobs:
    def __init__(self):
        self.files = {}

    def add(self, data, media_type, **more):
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}


def write(path, name, tag, layers, config, architecture, created, mtime):
    """`config` is the image's `config` object: user, entry point, environment."""
    blobs = Blobs()
    described = [blobs.add(layer.data, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers]
    config_blob = blobs.add(_json({
        "architecture": architecture, "os": "linux", "created": created, "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": created, "created_by": layer.why} for layer in layers],
    }), "application/vnd.oci.image.config.v1+json")
    manifest = blobs.add(_json({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config_blob,
        "layers": described, "annotations": config["Labels"],
    }), "application/vnd.oci.image.manifest.v1+json", annotations={
        "io.containerd.image.name": f"docker.io/library/{name}:{tag}", "org.opencontainers.image.ref.name": tag,
    }, platform={"architecture": architecture, "os": "linux"})

    def blob(entry):
        return "blobs/sha256/" + entry["digest"].split(":")[1]

    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                             "manifests": [manifest]}),
        "manifest.json": _json([{"Config": blob(config_blob), "RepoTags": [f"{name}:{tag}"],
                                 "Layers": [blob(entry) for entry in described]}]),
        **blobs.files,
    }
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for file in sorted(files):
            info = tarfile.TarInfo(file)
            info.size, info.mtime, info.mode = len(files[file]), mtime, 0o644
            tar.addfile(info, io.BytesIO(files[file]))
    return manifest["digest"]
