-- +goose Up

-- Who alone does some work, until when by the database's clock. A lease spares
-- double work; what keeps data safe is compare-and-swap.
CREATE TABLE lease (
    name   TEXT   NOT NULL PRIMARY KEY,
    holder TEXT   NOT NULL, -- name of a node
    fence  BIGINT NOT NULL, -- grows when the holder changes
    until  BIGINT NOT NULL  -- Unix milliseconds
);

-- The nodes that serve this database. One lives while its lease node/NAME does.
CREATE TABLE node (
    name    TEXT   NOT NULL PRIMARY KEY,
    url     TEXT   NOT NULL, -- where it listens
    session TEXT   NOT NULL, -- name of its connections to the database
    since   BIGINT NOT NULL, -- when it started
    own     TEXT   NOT NULL  -- what stands in its own data folder, where no other node reaches it; a line each
);
