#!/usr/bin/env python3
"""Writes a task of made-up receipts, as a scanner reads them: shops, items, several numbers and dates, OCR's noise.

    scripts/receipts.py FOLDER [--train 400] [--eval 60] [--test 300] [--labels N] [--seed 0]

Fields: company, date, total, all texts. `--labels N`: N rows of eval and train have labels (eval first), the others none;
by default all do. The truth of every train row is in FOLDER/truth.jsonl.
"""
import argparse
import json
import pathlib
import random

FIRST = "Golden Lucky Sunrise Ocean Pacific Royal Green Happy Star Mega Prime Family Eastern Silver Crystal Urban Kim Tan Ong Lim Perdana Jaya Indah Maju Bintang Harmoni Unique Modern Pioneer Global".split()
SECOND = "Hardware Bakery Restaurant Trading Stationery Mart Pharmacy Electrical Enterprise Books Cafe Kitchen Furniture Optical Motor Grocer Superstore Seafood Noodle Lighting".split()
ENDS = ["SDN BHD", "SDN. BHD.", "ENTERPRISE", "(M) SDN BHD", "TRADING", "& SONS", "LTD", "CO.", "", "PLT"]
STREETS = "Jalan Besar|Jalan Merdeka|Lorong Pasar|High Street|Station Road|Jalan Ampang|Market Lane|Taman Desa|Persiaran Utama|Harbour View".split("|")
TOWNS = "Shah Alam|Johor Bahru|Petaling Jaya|Kuala Lumpur|Klang|Ipoh|Melaka|Seremban".split("|")
GOODS = "copper pipe|paint brush 2in|kopi o|roti bakar|A4 paper 80gsm|led bulb 9w|fried rice|iced lemon tea|steel bolt m8|notebook hard cover|whole wheat bread|hand soap 500ml|usb cable 1m|teh tarik|chicken chop|battery AA 4s|wall plug|glue stick|mineral water|cable tie".split("|")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
NOISE = {"O": "0", "0": "O", "I": "1", "1": "l", "S": "5", "B": "8", "E": "F", "A": "4", "a": "o", "e": "c", "m": "rn", ".": ",", "l": "1"}


def money(value):
    return f"{value:,.2f}" if value >= 1000 else f"{value:.2f}"


def date_of(rng):
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2016, 2020)
    form = rng.choice(["{d:02}/{m:02}/{y}", "{d:02}/{m:02}/{y}", "{d:02}-{m:02}-{y}", "{y}-{m:02}-{d:02}", "{d} {n} {y}", "{d:02}/{m:02}/{s:02}", "{d:02}-{n}-{y}", "{n} {d}, {y}"])
    return form.format(d=day, m=month, y=year, n=MONTHS[month - 1], s=year % 100)


def noisy(rng, text, rate):
    return "".join(NOISE.get(letter, letter) if rng.random() < rate else letter for letter in text)


def receipt(rng, companies):
    company = rng.choice(companies) if rng.random() < 0.55 else name(rng)
    date = date_of(rng)
    items = [(rng.choice(GOODS), rng.choice([1, 1, 1, 2, 3, 5]), round(rng.uniform(0.5, 60), 1)) for _ in range(rng.randint(1, 6))]
    net = round(sum(count * price for _, count, price in items), 2)
    tax = round(net * 0.06, 2) if rng.random() < 0.6 else 0.0
    total = round(net + tax, 2)
    rounded = round(round(total * 20) / 20, 2)
    cash = float(next(note for note in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if note >= rounded))
    sign = rng.choice(["", "", "RM", "RM ", "$"])
    truth = {"company": company, "date": date, "total": money(rounded)}
    lines = []
    if rng.random() < 0.25:
        lines.append(rng.choice(["TAX INVOICE", "*** RECEIPT ***", "WELCOME", "CASH BILL", f"{rng.randint(100, 999)} COPY"]))
    words = company.split()
    if len(words) > 3 and rng.random() < 0.3:
        lines += [" ".join(words[:2]), " ".join(words[2:])]
    else:
        lines.append(company)
    if rng.random() < 0.6:
        lines.append(rng.choice(["({}-{})", "(CO. NO: {}-{})", "REG {}{}"]).format(rng.randint(100000, 999999), rng.choice("ABDHKMPTUVWX")))
    lines += [f"NO {rng.randint(1, 99)}, {rng.choice(STREETS)} {rng.randint(1, 20)}/{rng.randint(1, 30)},", f"{rng.randint(40000, 90000)} {rng.choice(TOWNS)}"]
    if rng.random() < 0.6:
        lines.append(f"TEL: 0{rng.randint(3, 9)}-{rng.randint(1000000, 99999999)}")
    if rng.random() < 0.4:
        lines.append(f"GST ID: 00{rng.randint(10 ** 9, 10 ** 10 - 1)}")
    label = rng.choice(["DATE: {}", "Date : {} 14:02", "{} 09:{m:02}:11", "{}", "INVOICE DATE {}", "DATE {} CASHIER 02"])
    dated = label.format(date, m=rng.randint(10, 59))
    number = f"{rng.choice(['INVOICE NO', 'BILL', 'CS', 'DOC NO.'])}: {rng.choice(['CS', 'INV', 'A', '0'])}{rng.randint(1000, 999999)}"
    head = [dated, number]
    rng.shuffle(head)
    if rng.random() < 0.25:
        head.append(f"MEMBER SINCE {date_of(rng)}")
    if rng.random() < 0.85:
        lines += head
    for good, count, price in items:
        lines.append(rng.choice(["{g} {c} x {p} {s}", "{c} {g} {s}", "{g} {p} {s}"]).format(g=good.upper(), c=count, p=money(price), s=money(count * price)))
    if not set(head) <= set(lines):
        late = head
    else:
        late = []
    if tax or rng.random() < 0.4:
        lines.append(f"{rng.choice(['SUBTOTAL', 'SUB TOTAL', 'TOTAL EXCL GST', 'AMOUNT'])} {sign}{money(net)}")
    if tax:
        lines.append(f"{rng.choice(['GST 6%', 'TAX @6%', 'SST 6%'])} {money(tax)}")
    if rounded != total:
        lines += [f"{rng.choice(['TOTAL INCL GST', 'TOTAL BEFORE ROUNDING'])} {money(total)}", f"ROUNDING {money(round(rounded - total, 2))}"]
    final = rng.choice(["TOTAL", "GRAND TOTAL", "TOTAL (RM)", "NETT TOTAL", "AMOUNT DUE", "TOTAL SALES"])
    lines += [final, f"{sign}{money(rounded)}"] if rng.random() < 0.3 else [f"{final}{rng.choice([' ', ': ', '  '])}{sign}{money(rounded)}"]
    if rng.random() < 0.8:
        lines += [f"{rng.choice(['CASH', 'PAID', 'TENDERED'])} {money(cash)}", f"CHANGE {money(cash - rounded)}"]
    if rng.random() < 0.3:
        lines.append(f"TOTAL QTY {sum(count for _, count, _ in items)}")
    lines += late
    if rng.random() < 0.5:
        lines.append(rng.choice(["THANK YOU PLEASE COME AGAIN", "GOODS SOLD ARE NOT RETURNABLE", f"POINTS {rng.randint(1, 900)} EXPIRE {date_of(rng)}"]))
    rate = rng.choice([0, 0, 0.005, 0.02])
    return "\n".join(noisy(rng, line, rate) for line in lines), truth


def name(rng):
    return " ".join(part for part in [rng.choice(FIRST), rng.choice(FIRST) if rng.random() < 0.3 else "", rng.choice(SECOND), rng.choice(ENDS)] if part).upper()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    for option, value in [("train", 400), ("eval", 60), ("test", 300), ("labels", None), ("seed", 0)]:
        parser.add_argument(f"--{option}", type=int, default=value)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    companies = [name(rng) for _ in range(60)]
    given.folder.mkdir(parents=True, exist_ok=True)
    left, truths = given.labels, []
    for part in ["eval", "train", "test"]:
        rows = []
        for index in range(getattr(given, part)):
            text, truth = receipt(rng, companies)
            row = {"id": f"{part}-{index + 1:03}", "messages": [{"role": "user", "content": f"Read company, date and total from this receipt. Answer with JSON.\n\n{text}"}]}
            if part == "train":
                truths.append({"id": row["id"], "expected": truth})
            if part == "test" or left is None or left > 0:
                row["expected"] = truth
                left = left - 1 if left is not None and part != "test" else left
            elif part == "eval":
                continue
            rows.append(row)
        (given.folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (given.folder / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truths))
    properties = {field: {"type": "string"} for field in ["company", "date", "total"]}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    (given.folder / "schema.json").write_text(json.dumps(schema, indent=2) + "\n")
    (given.folder / "task.toml").write_text(
        'name = "receipts"\nschema = "schema.json"\n\n[prompts]\ntrain = "train.jsonl"\neval = "eval.jsonl"\ntest = "test.jsonl"\n\n'
        '[score]\nkind = "json_schema"\n\n[[reward]]\npart = "fields"\nweight = 1.0\n'
    )


if __name__ == "__main__":
    main()
