-- +goose Up

-- How many items a container has, and the sum of their sizes. It is written in the
-- transactions that insert and delete items. The items of a container without a row are
-- counted whenever their number is asked for.
CREATE TABLE item_total (
    container BIGINT NOT NULL PRIMARY KEY,
    tenant    BIGINT NOT NULL,
    items     BIGINT NOT NULL,
    bytes     BIGINT NOT NULL
);

-- 1: the node writes item_total. Nodes of earlier versions do not.
ALTER TABLE node ADD COLUMN keeps_totals BIGINT NOT NULL DEFAULT 0;
