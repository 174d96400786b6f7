CREATE TABLE invoice (
  number INTEGER PRIMARY KEY,
  vendor TEXT NOT NULL,
  status TEXT NOT NULL,     -- open, late or paid
  account TEXT              -- that it was paid from in this conversation
);
CREATE TABLE reminder (
  number INTEGER NOT NULL REFERENCES invoice(number),
  days INTEGER NOT NULL
);
