-- +goose Up

-- A backup is a container of its own kind. Its items are copies of those of the
-- container that it was made of, and name the same blobs.
CREATE TABLE backup (
    id      BIGINT NOT NULL PRIMARY KEY REFERENCES container (id),
    tenant  BIGINT NOT NULL,
    kind    TEXT   NOT NULL, -- of the container that it was made of
    expires BIGINT NOT NULL  -- 0: it does not go by itself
);
CREATE INDEX backup_tenant ON backup (tenant, id);

-- A container that is not there yet or no more, while items of it are.
CREATE TABLE unfinished (
    container BIGINT NOT NULL PRIMARY KEY,
    tenant    BIGINT NOT NULL,
    copying   BIGINT NOT NULL -- 1: items are being copied into it, 0: what is left of it is to go
);

-- A blob that an item named which is gone. It goes when nothing names it.
CREATE TABLE dropped (
    blob   BIGINT NOT NULL,
    item   BIGINT NOT NULL,
    tenant BIGINT NOT NULL,
    PRIMARY KEY (blob, item)
);
