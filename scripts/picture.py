"""Terminal text on standard input to an SVG picture on standard output: how the README's pictures of real output are made."""
import html, sys

lines = [line.rstrip("\n") for line in sys.stdin]
width, height = 40 + 8.4 * max(map(len, lines)), 36 + 19 * len(lines)


def colour(line):
    if line.startswith("$"): return "#f2f2f2"
    if "proof" in line or "eval prompts" in line: return "#8fd3a8"
    if line.startswith("step"): return "#c8ccd4"
    return "#d8dee9"


print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}">')
print(f'<rect width="100%" height="100%" rx="8" fill="#1e222a"/><g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">')
for number, line in enumerate(lines):
    print(f'<text x="20" y="{32 + 19 * number}" fill="{colour(line)}" xml:space="preserve">{html.escape(line)}</text>')
print("</g></svg>")
