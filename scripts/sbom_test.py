#!/usr/bin/env python3
"""Tests of sbom.py, on the packages of this workspace: the lists name what is linked, and nothing else."""

import hashlib
import tempfile
import unittest
from pathlib import Path
from typing import Any

import sbom

CONTENT = b"what was built"


def listed(package: str, *arguments: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "built"
        file.write_bytes(CONTENT)
        return sbom.sbom(package, file, list(arguments))


def names(listing: dict[str, Any]) -> set[str]:
    return {component["name"] for component in listing["components"]}


class Lists(unittest.TestCase):
    def test_the_module_has_what_its_target_and_features_bring(self) -> None:
        found = names(listed("moorage", "--target", "wasm32-unknown-unknown"))
        self.assertLessEqual({"proxy-wasm", "sha2", "serde_json", "rsa"}, found)
        # A test's, a program's, a procedural macro, and a build script's.
        self.assertTrue(found.isdisjoint({"proptest", "tokio", "serde_derive", "autocfg"}), found)

    def test_a_feature_that_is_off_brings_nothing(self) -> None:
        found = names(listed("moorage", "--target", "wasm32-unknown-unknown", "--no-default-features"))
        self.assertTrue(found.isdisjoint({"proxy-wasm", "serde_path_to_error"}), found)

    def test_the_program_has_nothing_that_only_tests_switch_on(self) -> None:
        found = names(listed("moorage-cli"))
        self.assertLessEqual({"moorage", "clap", "reqwest", "tokio"}, found)
        # The tests have the filter of the crate `moorage`, the program has not.
        self.assertTrue(found.isdisjoint({"proxy-wasm", "moorage-test-support"}), found)

    def test_the_native_hasher_has_little_beside_the_hash(self) -> None:
        found = names(listed("moorage-native-hash"))
        self.assertIn("sha2", found)
        self.assertTrue(found.isdisjoint({"moorage", "proxy-wasm", "serde"}), found)

    def test_each_crate_has_its_address_license_and_checksum(self) -> None:
        for component in listed("moorage-cli")["components"]:
            with self.subTest(component["name"]):
                name, version = component["name"], component["version"]
                self.assertEqual(component["purl"], f"pkg:cargo/{name}@{version}")
                self.assertTrue(component["licenses"][0]["expression"])
                # Those of the workspace have none.
                if name not in {"moorage", "moorage-bootstrap", "moorage-maintenance"}:
                    self.assertRegex(component["hashes"][0]["content"], "^[0-9a-f]{64}$")

    def test_the_list_names_the_file_by_its_sum(self) -> None:
        listing = listed("moorage-cli")
        whole = listing["metadata"]["component"]
        self.assertEqual(whole["hashes"][0]["content"], hashlib.sha256(CONTENT).hexdigest())
        self.assertNotIn(whole["bom-ref"], {part["bom-ref"] for part in listing["components"]})

    def test_everything_hangs_together(self) -> None:
        listing = listed("moorage-cli")
        needs = {entry["ref"]: entry["dependsOn"] for entry in listing["dependencies"]}
        reached, pending = set(), [listing["metadata"]["component"]["bom-ref"]]
        while pending:
            ref = pending.pop()
            if ref not in reached:
                reached.add(ref)
                pending.extend(needs[ref])
        self.assertEqual(reached, set(needs))

    def test_a_crate_in_two_branches_keeps_its_needs(self) -> None:
        lines = ["0 a v1.0.0 (/a)", "1 b v1.0.0", "2 c v2.0.0", "3 d v1.0.0", "1 c v2.0.0 (*)"]
        root, tree = sbom.read_tree(lines)
        a, b, c, d = (sbom.Crate(*crate) for crate in [("a", "1.0.0"), ("b", "1.0.0"), ("c", "2.0.0"), ("d", "1.0.0")])
        self.assertEqual((root, tree), (a, {a: [b, c], b: [c], c: [d], d: []}))


if __name__ == "__main__":
    unittest.main()
