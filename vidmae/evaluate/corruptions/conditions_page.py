"""The page of all conditions with their levels, made from the code.

    python -m vidmae.evaluate.corruptions.conditions_page > vidmae/evaluate/corruptions/README.md     a test compares the two
"""

from __future__ import annotations

from vidmae.evaluate.corruptions.conditions import ALL, FLICKER

HEAD = """# Conditions that a model is tested under

Made by `python -m vidmae.evaluate.corruptions.conditions_page`; a change belongs into the modules beside this page.

A list of conditions has names with commas between: `clean`, `gaussian_noise:3` (level 3), `fog` (all its levels), a group
(`noise`, `blur`, `weather`, `digital`, `parametric`, `shape`, `video`, `time`), or `imagenet-c`, which is the first four
groups. What is drawn follows from a seed and from the name of the corruption, so all levels share their draws.
"""
TAIL = """
## Over time

A corruption of pictures is constant over a clip: noise, ice, angles and moves are drawn once for all frames, and what is
measured (mean of a colour, brightest value) is measured over the clip. `NAME-flicker`, one for each of the first 15, draws
and measures anew for each frame. Where nothing is drawn it strikes half of the frames, drawn, more than half if their number
is odd.

A model of one frame sees an image once, and `frame_drop` and `shake` leave it as it is. A model of several frames sees it
repeated: then `shake`, `compression` and flicker change it from frame to frame, and `frame_drop` changes nothing.

The group `time` changes no picture, only which frames a clip shows, and when: `shuffled-frames`, `reversed`, `frozen` and
`static-pair` are those of `data.clip`. `frames-4` cuts a clip into four stretches of equal length and shows the frame at the
middle of each for all of it, so a clip keeps its number of frames; `frozen` is the same with one. A model of one frame sees
them with views `framesN` alone: there the order changes nothing but rounding, and the choice of frames may.

## Other sizes

The published constants are meant for pictures of 224 px. With `s` = short side / 224:

- Lengths grow with `s`: radius and deviation of all blurs and filters, the reach of glass, the moves of the elastic
  transform. Whole numbers of px are rounded, and are 1 at least.
- Layers (snow, frost, fog, the field of the elastic transform) are drawn for a short side of 224 px and brought to size.
- Shares (pixelate, zoom, shake, shuffled cells) are shares of the side.
- Noise is drawn per pixel, and JPEG and H.264 keep their blocks: both harm a small picture more.

At 224 px nothing is scaled. The separate constants of CIFAR-10-C and Tiny ImageNet-C are not used.

## Where this is not the published set

- Frost is generated ice with the mean colour and the spread of photographs of frost. The published set uses photographs, so
  frost is named generated in tables.
- The published files of ImageNet-C are JPEG of quality 85; these frames are not compressed again.
- Glass copies a pixel where the paper says that two are exchanged. The code behind the published set copies, too.
- Phase noise turns a frequency and its negative by opposite angles, so that amplitudes stay, as the paper says.
- Power equalisation (it needs the mean spectrum of a data set), false colours (the response of a monitor) and eidolons (no
  kept library) are left out.
- Silhouettes, edges and shuffled cells are made by rules from pictures as they are. They are named generated in tables.

How near generated shapes come to published ones was measured with 160 silhouettes and 160 edge drawings of Geirhos et al.
2019, and with 480 of their cue conflicts of the same objects, in which texture covers object and ground alike (224 px):

| generated from | compared with | same object | another object |
| --- | --- | ---: | ---: |
| published silhouettes: silhouettes | those themselves, IoU | 0.92 (median 0.98) | |
| cue conflicts: silhouettes | published silhouettes, IoU | 0.38 | 0.22 |
| cue conflicts: edges | published lines within 3 px of a generated edge | 95 % | 78 % |

So generated edges hold the drawn lines and much besides, and a generated silhouette is as good as the ground is plain. The
difference from 1 in the first row are second parts and holes, which the rule leaves out and fills.
"""
COLUMNS = ("condition", "group", "what happens", "levels 1, 2, ...", "unit", "drawn", "source")


def page() -> str:
    """The page, as Markdown."""
    cells = [COLUMNS, ("---",) * len(COLUMNS)]
    cells += [(f"`{name}`", kind.group, kind.says, kind.level_text(), kind.meaning, "yes" if kind.drawn else "no",
               kind.source) for name, kind in ALL.items() if not name.endswith(FLICKER)]
    cells.append((f"`NAME{FLICKER}`", "video", "one of the first 15, see below", "those of NAME", "", "yes", "own"))
    return "\n".join([HEAD, *(f"| {' | '.join(row)} |" for row in cells), TAIL])


if __name__ == "__main__":
    print(page(), end="")
