"""A terminal's screen on standard input, with its colours (`tmux capture-pane -e -p`) or plain, to an SVG picture on standard output: how the README's
pictures of real screens are made. `film` makes one moving picture of several screens (scripts/capture)."""
import html, itertools, re, sys, unicodedata

WIDTH, HEIGHT, LEFT, TOP = 8.4, 19, 14, 14
GROUND, INK = "#1e222a", "#d8dee9"
SIXTEEN = ["#2b303b", "#e66c75", "#7ec878", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#c8ccd4",
           "#5c6370", "#f07f88", "#98d992", "#f0d08b", "#7fc1ff", "#d898eb", "#6fd0dc", "#ffffff"]


def of_256(number):
    if number < 16:
        return SIXTEEN[number]
    if number >= 232:
        level = 8 + 10 * (number - 232)
        return f"#{level:02x}{level:02x}{level:02x}"
    steps = [0, 95, 135, 175, 215, 255]
    number -= 16
    return "#%02x%02x%02x" % (steps[number // 36], steps[number // 6 % 6], steps[number % 6])


def styled(style, codes):
    """The style after a select-graphic-rendition sequence."""
    codes = [int(code or 0) for code in codes]
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = {}
        elif code in (38, 48):
            kind = codes.pop(0)
            colour = of_256(codes.pop(0)) if kind == 5 else "#%02x%02x%02x" % tuple(codes.pop(0) for _ in range(3))
            style = style | {"ink" if code == 38 else "ground": colour}
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style = style | {"ink": SIXTEEN[code - 30 if code < 90 else code - 82]}
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style = style | {"ground": SIXTEEN[code - 40 if code < 100 else code - 92]}
        elif code in (39, 49):
            style = {key: value for key, value in style.items() if key != ("ink" if code == 39 else "ground")}
        elif code in (1, 2, 3, 4, 7):
            style = style | {{1: "bold", 2: "faint", 3: "italic", 4: "underline", 7: "reverse"}[code]: True}
        elif code in (22, 23, 24, 27):
            gone = {22: ("bold", "faint"), 23: ("italic",), 24: ("underline",), 27: ("reverse",)}[code]
            style = {key: value for key, value in style.items() if key not in gone}
    return style


def columns(text):
    return sum(0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def draw(x, y, text, style):
    ink, ground = style.get("ink", INK), style.get("ground")
    if style.get("reverse"):
        ink, ground = ground or GROUND, style.get("ink", INK)
    wide = columns(text) * WIDTH
    if ground and ground != GROUND:
        yield f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{HEIGHT}" fill="{ground}"/>'
    if not text.strip():
        return
    # Blanks at the ends would be dropped, and the rest stretched over their place.
    x, text = x + (len(text) - len(text.lstrip())) * WIDTH, text.strip()
    wide = columns(text) * WIDTH
    extra = ' font-weight="bold"' if style.get("bold") else ""
    extra += ' opacity="0.6"' if style.get("faint") else ""
    extra += ' font-style="italic"' if style.get("italic") else ""
    extra += ' text-decoration="underline"' if style.get("underline") else ""
    # Fonts disagree about the width of what is not ASCII: runs of one letter are spaced, others placed letter by letter.
    if text.isascii() or len(set(text)) == 1:
        length = f' textLength="{wide:.1f}"' if len(text) > 1 else ""
        length += "" if text.isascii() else ' lengthAdjust="spacingAndGlyphs"'
        yield f'<text x="{x:.1f}" y="{y + 14}"{length} fill="{ink}"{extra}>{html.escape(text)}</text>'
        return
    letters = ((columns(text[:index]), letter) for index, letter in enumerate(text))
    spans = "".join(f'<tspan x="{x + column * WIDTH:.1f}">{html.escape(letter)}</tspan>' for column, letter in letters if letter != " ")
    yield f'<text y="{y + 14}" fill="{ink}"{extra}>{spans}</text>'


def rows(screen):
    """The elements of each row of a screen, and the columns of its widest row."""
    style, drawn, most = {}, [], 0
    for number, line in enumerate(screen.rstrip("\n").split("\n")):
        column, elements = 0, []
        for index, piece in enumerate(re.split(r"\x1b\[([0-9;]*)m", line)):
            if index % 2:
                style = styled(style, re.split(";", piece))
                continue
            text = re.sub(r"\x1b[^m]*?[A-Za-z\\]|[\x00-\x08\x0e-\x1f]", "", piece)
            # Blanks between words move the pen, so that no font's idea of a blank can shift what follows.
            for part in re.findall(r" {2,}|─{4,}|(?:(?!─{4,})(?:[^ ]| (?! )))+", text):
                elements.extend(draw(LEFT + column * WIDTH, TOP + number * HEIGHT, part, style))
                column += columns(part)
        drawn.append(elements)
        most = max(most, column)
    return drawn, most


def picture(most, count, elements, style=""):
    wide, high = 2 * LEFT + most * WIDTH, 2 * TOP + count * HEIGHT
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{high}" viewBox="0 0 {wide:.0f} {high}">{style}',
        f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>',
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">',
        *elements,
        "</g></svg>",
    ])


def film(frames):
    """One picture that shows each `(screen, seconds)` in turn, for ever. A row that stays is drawn once."""
    drawn = [rows(screen) for screen, _ in frames]
    ends = list(itertools.accumulate(seconds for _, seconds in frames))
    total, style, elements = ends[-1], ["g.s{visibility:hidden}"], []
    for number in range(max(len(screen) for screen, _ in drawn)):
        row = [screen[number] if number < len(screen) else [] for screen, _ in drawn]
        start = 0
        while start < len(row):
            end = next((later for later in range(start, len(row)) if row[later] != row[start]), len(row))
            if (start, end) == (0, len(row)):
                elements.extend(row[start])
            elif row[start]:
                begin, until = (100 * (ends[start - 1] if start else 0) / total, 100 * ends[end - 1] / total)
                name = f"f{start}-{end}"
                before = f"0%{{visibility:hidden}}{begin:.3f}%{{visibility:visible}}" if start else "0%{visibility:visible}"
                after = f"{until:.3f}%{{visibility:hidden}}" if end < len(row) else ""
                rule = f"@keyframes {name}{{{before}{after}}}.{name}{{animation:{name} {total:.1f}s step-end infinite}}"
                if rule not in style:
                    style.append(rule)
                elements.append(f'<g class="s {name}">' + "".join(row[start]) + "</g>")
            start = end
    most = max(most for _, most in drawn)
    return picture(most, max(len(screen) for screen, _ in drawn), elements, f"<style>{''.join(style)}</style>")


if __name__ == "__main__":
    drawn, most = rows(sys.stdin.read())
    print(picture(most, len(drawn), itertools.chain(*drawn)))
