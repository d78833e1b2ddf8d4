-- +goose Up

-- An import of mail: how much of its mbox is stored, and by what the same mbox is
-- known again. It is written in the transaction that stores messages.
CREATE TABLE mail_import (
    tenant    BIGINT NOT NULL,
    container BIGINT NOT NULL,
    name      TEXT   NOT NULL, -- chosen by the caller
    request   BIGINT NOT NULL, -- that may go on with it; 0: none
    format    TEXT   NOT NULL,
    messages  BIGINT NOT NULL,
    bytes     BIGINT NOT NULL, -- of the mbox, up to the end of the last message
    digest    ${BLOB} NOT NULL, -- keyed hash of these bytes
    link      BIGINT NOT NULL, -- the item of the last message if it does not end in an empty line, or 0
    finished  BIGINT NOT NULL, -- 1: all of the mbox is stored
    started   BIGINT NOT NULL, -- Unix milliseconds
    changed   BIGINT NOT NULL,
    PRIMARY KEY (tenant, container, name)
);
