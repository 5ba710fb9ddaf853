"""LAPA's latent-pretraining lines (LatentActionPretraining/LAPA): pictures, prompts and latent action tokens.

One JSON object a line: ``image`` (path below the data set's folder), ``instruction`` (the prompt), ``delta`` (the codes
as strings, the same number on every line) and ``fields``. There is no ``vision``: its VQGAN ids belong to the trainer's
own encoder, which adds them or reads the pictures. ``segment_id`` and ``time_ns`` say where a line comes from.

LAPA's own actions are 4 tokens of a vocabulary of 8. With these, its trainer needs ``delta_vocab_size`` above the
largest code and ``n_tokens_per_delta`` = the codes on a line; the summary's options hold both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import cv2

from laps.errors import InputError, MediaError
from laps.export.card import CardFacts, write_card
from laps.export.folder import new_folder
from laps.export.items import (
    ExportItem,
    Progress,
    Summary,
    even_size,
    fitted,
    frame_size,
    in_order,
    sampled_frames,
    watched,
)

PROMPT = "<s> You are a helpful assistant. USER: What action should the robot take to `{task}` ASSISTANT:"
FIELDS = "[instruction],[vision],delta"  # no loss on what stands in brackets
_JPEG_QUALITY = 95


def write_lapa(
    items: Iterable[ExportItem],
    out: Path,
    *,
    codes_per_line: int = 4,
    vocabulary_size: int = 2048,
    prompt: str = PROMPT,
    size_px: tuple[int, int] | None = None,
    card: CardFacts | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write ``train.jsonl``, ``validation.jsonl`` (where there are such primitives) and ``images/<segment_id>/``.

    A line holds ``codes_per_line`` codes in a row and the picture on which the first one's motion begins. Codes that
    do not fill a line at a primitive's end are left out, and so are primitives with fewer.

    Args:
        items: the primitives, in any order.
        out: the folder to make; see :func:`laps.export.folder.new_folder`.
        codes_per_line: codes on a line (``n_tokens_per_delta``).
        vocabulary_size: every code must be below it (``delta_vocab_size``).
        prompt: the instruction; ``{task}`` stands for the primitive's task.
        size_px: width and height of the pictures; None leaves each as it is.
        card: adds a data set card.
        progress: told each primitive that was written or left out.

    Raises:
        InputError: nothing is selected, a code is outside the vocabulary, an option is out of range.
        NotProcessedError: not one primitive could be written.
    """
    if codes_per_line < 1:
        raise InputError(f"a line cannot hold {codes_per_line} codes", fix="Give 1 or more.")
    if "{task}" not in prompt:
        raise InputError("the prompt has no {task}, so every line would ask for the same", fix="Put {task} into it.")
    ordered = in_order(items)
    for item in ordered:
        if max(item.codes, default=0) >= vocabulary_size:
            raise InputError(
                f"code {max(item.codes)} is outside a vocabulary of {vocabulary_size}",
                where=item.where,
                fix=f"Give a vocabulary_size above {max(item.codes)}.",
            )
    options: dict[str, Any] = {"n_tokens_per_delta": codes_per_line, "delta_vocab_size": vocabulary_size}
    summary = Summary("lapa", options={**options, "prompt": prompt, "size_px": size_px})
    with new_folder(out) as folder:
        files: dict[str, TextIO] = {}
        try:
            for item in watched(ordered, progress):
                try:
                    pictures = _pictures(item, codes_per_line, size_px)
                except MediaError as error:
                    summary.skipped.append((item.segment_id, str(error)))
                    continue
                if item.split not in files:
                    files[item.split] = (folder / f"{item.split}.jsonl").open("w", encoding="utf-8", newline="\n")
                _write_item(item, pictures, folder, files[item.split], codes_per_line, prompt)
                summary.written.append(item)
                summary.frames += len(pictures)
                summary.codes += len(pictures) * codes_per_line
        finally:
            for file in files.values():
                file.close()
        summary.check_not_empty()
        if card is not None:
            write_card(folder, card, summary)
    return summary


def _pictures(item: ExportItem, codes_per_line: int, size_px: tuple[int, int] | None) -> list[bytes]:
    """The picture of each line, JPEG."""
    lines = len(item.codes) // codes_per_line
    if lines == 0:
        raise MediaError(f"its {len(item.codes)} codes do not fill a line of {codes_per_line}", where=item.where)
    shown = frame_size(item)
    pictures: list[bytes] = []
    for place, frame in enumerate(sampled_frames(item)):
        if place % codes_per_line == 0 and len(pictures) < lines:
            picture = fitted(frame, shown, size_px or even_size(shown))
            done, jpeg = cv2.imencode(
                ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
            )
            if not done:
                raise MediaError("a picture could not be compressed", where=item.where)
            pictures.append(jpeg.tobytes())
    return pictures


def _write_item(
    item: ExportItem, pictures: list[bytes], folder: Path, lines: TextIO, codes_per_line: int, prompt: str
) -> None:
    images = folder / "images" / item.segment_id
    images.mkdir(parents=True)
    for number, jpeg in enumerate(pictures):
        image = images / f"{number:05d}.jpg"
        image.write_bytes(jpeg)
        place = number * codes_per_line
        row = {
            "image": image.relative_to(folder).as_posix(),
            "instruction": prompt.replace("{task}", item.task),
            "delta": [str(code) for code in item.codes[place : place + codes_per_line]],
            "fields": FIELDS,
            "segment_id": item.segment_id,
            "time_ns": (item.first_sample + place) * item.step_ns,
        }
        lines.write(json.dumps(row, ensure_ascii=False) + "\n")
