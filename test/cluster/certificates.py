"""Certificates made with openssl(1), good and bad ones."""

import os
import subprocess


def _openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def new_ca(where, subject="/CN=Test CA"):
    """ca.crt and ca.key in `where`."""
    os.makedirs(where)
    _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", os.path.join(where, "ca.key"), "-out", os.path.join(where, "ca.crt"),
             "-days", "10", "-subj", subject)


def new_certificate(where, name, ca_crt, ca_key, start="20200101000000Z", end="20400101000000Z"):
    """node.crt and node.key for `name` in `where`, signed by the CA given, valid from start to end."""
    os.makedirs(where)
    at = {f: os.path.join(where, f) for f in
          ("node.key", "node.crt", "csr", "conf", "index", "serial")}
    _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", at["node.key"], "-out", at["csr"], "-subj", f"/CN={name}")
    for f, text in (
        ("conf", f"[ca]\ndefault_ca=d\n[d]\ndatabase={at['index']}\nnew_certs_dir={where}\n"
                 f"serial={at['serial']}\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n"
                 f"[p]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:{name}\n"),
        ("index", ""), ("serial", "4242\n"),
    ):
        with open(at[f], "w", encoding="ascii") as handle:
            handle.write(text)
    _openssl("ca", "-batch", "-config", at["conf"], "-cert", ca_crt, "-keyfile", ca_key,
             "-in", at["csr"], "-out", at["node.crt"], "-startdate", start, "-enddate", end,
             "-notext")
