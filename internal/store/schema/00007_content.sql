-- +goose Up

-- What a user sees as one thing: a message, a file.
CREATE TABLE item (
    id        BIGINT  NOT NULL PRIMARY KEY,
    tenant    BIGINT  NOT NULL,
    container BIGINT  NOT NULL,
    version   BIGINT  NOT NULL, -- of its metadata, counted from 1
    path_hash ${BLOB},          -- of a file: HMAC of its path, by which it is found; of a message: null
    metadata  ${BLOB} NOT NULL, -- sealed
    size      BIGINT  NOT NULL, -- bytes of content, of all its blobs
    created   BIGINT  NOT NULL
);
CREATE INDEX item_container ON item (tenant, container, id, size);
CREATE UNIQUE INDEX item_path ON item (tenant, container, path_hash) WHERE path_hash IS NOT NULL;

-- A piece of an item's content as it stands in the blob store, under a key of
-- its own. A message is one blob, a file a sequence of them. Copies of an item
-- in other containers, backups and what is restored from them, name the same
-- blobs.
CREATE TABLE blob (
    id       BIGINT NOT NULL,
    tenant   BIGINT NOT NULL,
    item     BIGINT NOT NULL REFERENCES item (id),
    sequence BIGINT NOT NULL, -- counted from 0
    size     BIGINT NOT NULL, -- bytes of content
    page     BIGINT NOT NULL, -- the key page with its key's slot
    PRIMARY KEY (item, sequence)
);
CREATE INDEX blob_id ON blob (id);
