-- +goose Up

-- Settings of the server as a whole, written at first start.
CREATE TABLE setting (
    name   TEXT   NOT NULL PRIMARY KEY,
    tenant BIGINT NOT NULL DEFAULT 0, -- 0: of the server, not of one tenant
    value  TEXT   NOT NULL
);

-- The organisations; everything belongs to exactly one.
CREATE TABLE tenant (
    id      BIGINT NOT NULL PRIMARY KEY,
    tenant  BIGINT NOT NULL UNIQUE, -- its own id
    guid    TEXT   NOT NULL UNIQUE,
    name    TEXT   NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    made    BIGINT NOT NULL DEFAULT 0 -- 1 once all that a tenant begins with stands
);

-- One row: the seal that this database was made under.
CREATE TABLE seal_check (
    one    BIGINT  NOT NULL PRIMARY KEY,
    tenant BIGINT  NOT NULL DEFAULT 0,
    id     TEXT    NOT NULL,
    value  ${BLOB} NOT NULL -- a fixed text under the seal
);

-- keyroll's own secrets, each under the seal and bound to its name.
CREATE TABLE secret (
    name   TEXT    NOT NULL PRIMARY KEY,
    tenant BIGINT  NOT NULL DEFAULT 0,
    sealed ${BLOB} NOT NULL
);
