"""What a reader's eye would trip over on a page: text that is faint, cut off, or lies on other text. Measured in the browser.

found = problems(browser, folder)      # sentences, one for each; none where all is well

The contrast is that of WCAG 2: the colour of the text against the pixels that lie behind it, which are taken from a picture
of the page without its text, so that bars, shaded cells and plots count as they are.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

LEAST_CONTRAST = 4.5
_SHARE = 0.2  # of the pixels behind a text that a colour must have to count: lines of a grid are thinner
_OVERLAP = (1.5, 4.0)  # pixels in width and height: boxes of neighbouring lines touch

TEXTS = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const colour = text => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement, words = node.textContent.trim();
    if (!words || !parent.checkVisibility() || parent.closest('script, style, title, defs')) continue;
    const svg = parent.closest('svg'), style = getComputedStyle(parent), range = document.createRange();
    range.selectNodeContents(node);
    let boxes = [...range.getClientRects()], turned = false;
    if (svg) {
      const text = parent.closest('text'), matrix = text.getScreenCTM();
      boxes = [text.getBoundingClientRect()]; turned = Math.abs(matrix.b) > 0.01;
    }
    let opacity = 1, cut = false, card = svg, away = new Set();
    for (let above = parent; above; above = above.parentElement) {
      const outer = getComputedStyle(above), area = above.getBoundingClientRect();
      opacity *= Number(outer.opacity);
      if (!card && outer.display !== 'inline' && colour(outer.backgroundColor)[3] > 0) {
        card = above;
        if (outer.overflowX === 'visible') cut = boxes.some(box => box.left < area.left - 1 || box.right > area.right + 1);
      }
      for (const [axis, low, high] of [['X', 'left', 'right'], ['Y', 'top', 'bottom']]) {
        const rule = outer['overflow' + axis];
        if (above === document.documentElement || above === document.body || rule === 'visible') continue;
        boxes.forEach((box, place) => {
          if (box[low] >= area[low] - 1 && box[high] <= area[high] + 1) return;
          if (rule === 'hidden' || rule === 'clip') cut = true; else away.add(place);
        });
      }
    }
    if (svg) {
      const frame = svg.getBoundingClientRect();
      cut = boxes.some(box => box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
    }
    const inside = boxes.filter((box, place) => !away.has(place) && box.width > 0 && box.height > 0);
    if (!inside.length) continue;
    const [r, g, b, a] = colour(svg ? style.fill : style.color);
    found.push({
      words: words.slice(0, 60), colour: [r, g, b], alpha: a / 255 * opacity, cut, turned,
      boxes: inside.map(box => [box.left + scrollX, box.top + scrollY, box.right + scrollX, box.bottom + scrollY]),
    });
  }
  return found;
})()"""
HIDE_TEXT = """(() => {
  const style = document.createElement('style');
  style.id = 'without-text';
  style.textContent = '* { color: transparent !important; } svg text, svg text * { fill: transparent !important; stroke: none !important; }';
  document.head.append(style);
})()"""
SHOW_TEXT = "document.getElementById('without-text').remove()"
FOCUSABLE = "a[href], button, input, select, summary, [tabindex]:not([tabindex^='-'])"


def problems(browser: Any, folder: Path) -> list[str]:
    """Sentences about the page that is open. folder: where its picture is written."""
    texts = browser.evaluate(TEXTS)
    browser.evaluate(HIDE_TEXT)
    picture = Image.open(io.BytesIO(browser.screenshot(folder / "without_text.png"))).convert("RGB")
    browser.evaluate(SHOW_TEXT)
    behind = np.asarray(picture, np.float64)
    assert len(texts) > 50, "a page has text"
    found = [f"cut off: {text['words']!r}" for text in texts if text["cut"]]
    for text in texts:
        contrast = min((_contrast(text, box, behind) for box in text["boxes"]), default=21.0)
        if contrast < LEAST_CONTRAST:
            found.append(f"faint, {contrast:.2f}:1: {text['words']!r}")
    return found + _overlaps(texts)


def _contrast(text: dict[str, Any], box: list[float], behind: npt.NDArray[np.float64]) -> float:
    """The lowest against a colour that a good part of the pixels behind the text has."""
    edge = 0.2 * (box[3] - box[1])  # letters do not fill their line
    left, top, right, bottom = (round(end) for end in (box[0], box[1] + edge, box[2], box[3] - edge))
    area = behind[max(0, top) : bottom, max(0, left) : right].reshape(-1, 3)
    if not len(area):
        return 21.0
    _, place, counts = np.unique(area // 4, axis=0, return_inverse=True, return_counts=True)
    lowest = 21.0
    for number in np.flatnonzero(counts >= _SHARE * len(area)):
        ground = area[place.reshape(-1) == number].mean(0)
        ink = text["alpha"] * np.array(text["colour"], np.float64) + (1 - text["alpha"]) * ground
        light, dark = sorted((_luminance(ink), _luminance(ground)), reverse=True)
        lowest = min(lowest, (light + 0.05) / (dark + 0.05))
    return lowest


def _luminance(colour: npt.NDArray[np.float64]) -> float:
    unit = colour / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _overlaps(texts: list[dict[str, Any]]) -> list[str]:
    boxes = [(number, box) for number, text in enumerate(texts) if not text["turned"] for box in text["boxes"]]
    boxes.sort(key=lambda one: one[1][1])
    found = []
    for place, (number, (left, top, right, bottom)) in enumerate(boxes):
        for other, (left2, top2, right2, bottom2) in boxes[place + 1 :]:
            if top2 > bottom:
                break
            wide, high = min(right, right2) - max(left, left2), min(bottom, bottom2) - max(top, top2)
            if other != number and wide > _OVERLAP[0] and high > _OVERLAP[1]:
                found.append(f"on each other: {texts[number]['words']!r} and {texts[other]['words']!r}")
    return found
