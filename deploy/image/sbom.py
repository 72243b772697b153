"""What is in the image, as SPDX 2.3 JSON: Holdfast, and every Debian package with its version and checksum."""

import hashlib
import json


def _purl(package):
    return (f"pkg:deb/debian/{package.name}@{package.version.replace(':', '%3A').replace('+', '%2B')}"
            f"?arch={package.field['Architecture']}&distro=debian-12")


def make(version, packages, created):
    document = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"holdfast-{version}",
        "creationInfo": {"created": created, "creators": ["Tool: holdfast-make-image"]},
        "packages": [{
            "SPDXID": "SPDXRef-holdfast", "name": "holdfast", "versionInfo": version,
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": "Apache-2.0",
            "licenseDeclared": "Apache-2.0", "copyrightText": "NOASSERTION", "primaryPackagePurpose": "CONTAINER",
        }],
        "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                           "relatedSpdxElement": "SPDXRef-holdfast"}],
    }
    for p in packages:
        ref = "SPDXRef-deb-" + p.name.replace("+", "-plus")
        document["packages"].append({
            "SPDXID": ref, "name": p.name, "versionInfo": p.version,
            "supplier": "Organization: Debian", "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
            "comment": f"the image has its notice as /usr/share/doc/{p.name}/copyright",
            "checksums": [{"algorithm": "SHA256", "checksumValue": p.sha256}],
            "sourceInfo": "built from " + p.field.get("Source", p.name),
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                              "referenceLocator": _purl(p)}],
        })
        document["relationships"].append({"spdxElementId": "SPDXRef-holdfast", "relationshipType": "CONTAINS",
                                          "relatedSpdxElement": ref})
    # Unique for each content, and the same for the same.
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    document["documentNamespace"] = f"https://holdfast.invalid/spdx/{digest}"
    return json.dumps(document, indent=1, sort_keys=True) + "\n"
