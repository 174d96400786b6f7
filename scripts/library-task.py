#!/usr/bin/env python3
"""Writes a task with live tools that shares no words with the sample task `assistant`: the desk of a library, 1 to 6 calls.

    scripts/library-task.py FOLDER

200 training, 24 eval and 500 test requests, all different; `expected` is the final state, and no row has a demonstration."""
import json, random, pathlib, sys
out=pathlib.Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
r=random.Random(7)
first="Ada Ben Cleo Dara Emil Fay Gus Hana Ivo June Kofi Lena Milo Nora Otto Pia Quin Rosa Sven Tess".split()
last="Abel Brandt Costa Dunn Ekberg Falk Grant Holm Ibsen Jarvis Klein Lund Moss Novak Ortiz Park Quill Reed Stone Voss".split()
adj="Silent Broken Distant Golden Hidden Last Narrow Open Paper Quiet Red Second Small Tall White Winter".split()
noun="River Garden Window Letter Harbour Street Clock Forest Mirror Bridge Island Lantern Orchard Tower Road Sea".split()
def person(): return f"{r.choice(first)} {r.choice(last)}"
def row(i,set_):
    author=person(); other=person()
    while other==author: other=person()
    member=f"M{r.randint(100,999)}"
    titles=set()
    def book(a):
        while True:
            t=f"The {r.choice(adj)} {r.choice(noun)}"
            if t not in titles: titles.add(t); return [f"b{r.randint(1000,9999)}",t,a,r.choice(["shelf","lent"])]
    books=[book(author) for _ in range(r.randint(2,4))]+[book(other) for _ in range(2)]
    ids=set()
    for b in books:
        while b[0] in ids: b[0]=f"b{r.randint(1000,9999)}"
        ids.add(b[0])
    mine=[b for b in books if b[2]==author]
    mine[0][3]="shelf"; mine[1][3]="lent"
    days=r.randint(2,60)
    kind=r.choice(["lend","reserve","both","title"])
    loans=[];res=[]
    if kind=="lend":
        q=r.choice([f"Lend {member} every book by {author} that is on the shelf.", f"{member} wants what the shelf has of {author}, please lend it."])
        loans=[b for b in mine if b[3]=="shelf"]
    elif kind=="reserve":
        q=r.choice([f"Reserve the lent books of {author} for {member}, for {days} days.", f"Member {member} would like the books by {author} that are lent out reserved for {days} days."])
        res=[b for b in mine if b[3]=="lent"]
    elif kind=="both":
        q=f"For {member}: lend the books by {author} that are on the shelf and reserve the lent ones for {days} days."
        loans=[b for b in mine if b[3]=="shelf"]; res=[b for b in mine if b[3]=="lent"]
    else:
        two=r.sample([b for b in books],1)[0]; two[3]="shelf"
        q=f"Lend book {two[0]} to {member}."
        loans=[two]
    state=sorted([[b[0],member,None] for b in loans]+[[b[0],member,days] for b in res],key=lambda x:(x[0],x[2] or 0))
    sql="INSERT INTO book VALUES "+", ".join(f"('{a}','{t}','{au}','{s}')" for a,t,au,s in books)+";"
    return {"id":f"{set_}-{i:03}","messages":[{"role":"user","content":q}],"expected":state,"tags":[kind],"database":sql}
seen=set()
for name,n in [("train",200),("eval",24),("test",500)]:
    rows=[]
    while len(rows)<n:
        x=row(len(rows)+1,name)
        if x["messages"][0]["content"] in seen: continue
        seen.add(x["messages"][0]["content"]); rows.append(x)
    (out/f"{name}.jsonl").write_text("".join(json.dumps(x)+"\n" for x in rows))
(out/"library.sql").write_text("CREATE TABLE book (id TEXT PRIMARY KEY, title TEXT, author TEXT, status TEXT);\nCREATE TABLE entry (book TEXT, member TEXT, days INTEGER);\n")
S=lambda **p:{"type":"object","properties":p,"required":list(p),"additionalProperties":False}
T={"type":"string","minLength":1}
tools=[("books_of","The books of an author with a status",S(author=T,status={"enum":["shelf","lent"]}),"SELECT id, title FROM book WHERE author = :author AND status = :status"),
("lend","Lends a book to a member",S(book=T,member=T),"INSERT INTO entry SELECT id, :member, NULL FROM book WHERE id = :book AND status = 'shelf'"),
("reserve","Reserves a lent book for a member",S(book=T,member=T,days={"type":"integer","minimum":1}),"INSERT INTO entry SELECT id, :member, :days FROM book WHERE id = :book AND status = 'lent'")]
(out/"tools.json").write_text(json.dumps([{"type":"function","function":{"name":n,"description":d,"parameters":p},"sql":s} for n,d,p,s in tools],indent=1))
(out/"task.toml").write_text('''name = "library"
title = "Library desk"
system = "You are the desk of a library. Do what is asked with the tools."
[prompts]
train = "train.jsonl"
eval = "eval.jsonl"
test = "test.jsonl"
[[tool]]
builtin = "sqlite"
database = "library.sql"
definitions = "tools.json"
[score]
kind = "state"
query = "SELECT book, member, days FROM entry ORDER BY 1, 3"
''')
