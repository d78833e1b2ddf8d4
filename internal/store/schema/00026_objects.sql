-- +goose Up

-- A file of the blob store that holds several blobs, each at an offset of its own. A blob
-- that is alone in its file has no row here.
CREATE TABLE object (
    id     BIGINT NOT NULL,
    tenant BIGINT NOT NULL,
    size   BIGINT NOT NULL, -- bytes
    blobs  BIGINT NOT NULL, -- that it was written with
    dead   BIGINT NOT NULL, -- bytes of blobs that no row of blob or dropped refers to
    PRIMARY KEY (tenant, id)
);

-- Where the blob is in the blob store. 0: it is alone in the object of its own id, at 0.
ALTER TABLE blob ADD COLUMN object BIGINT NOT NULL DEFAULT 0;
ALTER TABLE blob ADD COLUMN at BIGINT NOT NULL DEFAULT 0;

-- The same, and the bytes of content.
ALTER TABLE dropped ADD COLUMN object BIGINT NOT NULL DEFAULT 0;
ALTER TABLE dropped ADD COLUMN at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE dropped ADD COLUMN size BIGINT NOT NULL DEFAULT 0;

-- 1: the node reads objects of several blobs. Nodes of earlier versions do not.
ALTER TABLE node ADD COLUMN reads_objects BIGINT NOT NULL DEFAULT 0;
