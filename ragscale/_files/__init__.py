"""Files and folders of the library: whole or absent, with digests, checked when read, and never the user's own."""

from ragscale._files._digests import (
    canonical_json,
    check_digest,
    check_size,
    file_digest,
    file_digests,
    path_digest,
    value_digest,
)
from ragscale._files._disk import disk_errors
from ragscale._files._folders import recover_folder, remove_leftovers, replace_folder, whole_folder
from ragscale._files._json import check_fields, damaged, load_json, parse_json, read_json, write_json
from ragscale._files._lock import Busy, locked
from ragscale._files._ownership import OwnedFolder, is_ours, mark_ours, remove_ours
from ragscale._files._writing import atomic_write, attempt_name, sync_directory

__all__ = [
    "Busy",
    "OwnedFolder",
    "atomic_write",
    "attempt_name",
    "canonical_json",
    "check_digest",
    "check_fields",
    "check_size",
    "damaged",
    "disk_errors",
    "file_digest",
    "file_digests",
    "is_ours",
    "load_json",
    "locked",
    "mark_ours",
    "parse_json",
    "path_digest",
    "read_json",
    "recover_folder",
    "remove_leftovers",
    "remove_ours",
    "replace_folder",
    "sync_directory",
    "value_digest",
    "whole_folder",
    "write_json",
]
