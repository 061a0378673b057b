"""The offline files of W&B, read without W&B; and rows as they are compared."""

import json
import struct
import time


def finished_wandb(folder) -> list:
    """The records of the offline run in a folder; its process may still be writing when `finish` returns."""
    [file] = folder.rglob("*.wandb")
    for _ in range(100):
        records = read_wandb(file)
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise TimeoutError(f"{file} has no exit record after 10 s")


def read_wandb(file) -> list:
    """The records of a .wandb file: LevelDB's log format (32 KiB blocks; crc, length, type) behind a 7-byte header."""
    from wandb.proto import wandb_internal_pb2

    data, position, pending, records = file.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        left_in_block = 32768 - position % 32768
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        if left_in_block < 7 or kind == 0:
            position += left_in_block
            continue
        if position + 7 + length > len(data):  # still being written
            break
        pending += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pending)
            records.append(record)
            pending = b""
    return records


def history(records: list) -> list[dict]:
    """What was logged, a dictionary per step; nested keys are joined by dots."""
    return [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def table(folder, row: dict, name: str) -> dict:
    """Columns and data of a table that was logged."""
    [file] = folder.rglob(row[f"{name}.path"])
    return json.loads(file.read_text())


def steps_and_values(rows: list[dict]) -> list[tuple[int, float]]:
    return [(row["step"], row["objective/kl"]) for row in rows]
