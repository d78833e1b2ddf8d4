-- +goose Up

-- A row is a key page: up to some hundreds of child keys sealed by one parent key.
CREATE TABLE key_page (
    id         BIGINT  PRIMARY KEY,
    tenant     BIGINT  NOT NULL,
    parent     BIGINT  NOT NULL, -- id of the sealing key: a policy key, or for class blobs a container
    generation BIGINT  NOT NULL, -- of the sealing key
    class      BIGINT  NOT NULL,
    version    BIGINT  NOT NULL, -- counts from 1; compare-and-swap
    count      BIGINT  NOT NULL, -- slots
    body       ${BLOB} NOT NULL
);

-- The ledger and the pages left to roll are read from this index alone. Class
-- comes before parent because the ledger leaves out class blobs, whose pages
-- and parents are by far the most.
CREATE INDEX key_page_place ON key_page (tenant, class, parent, generation, id, count);
