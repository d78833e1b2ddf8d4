-- +goose Up

-- By which form of a name what it holds is found: 0: by its exact spelling; 1: as
-- name.Fold compares, but for names that would then be one, which keep their exact
-- spellings. Of a site: the paths of its files. Of a directory: the URLs of sites.
ALTER TABLE container ADD COLUMN names BIGINT NOT NULL DEFAULT 0;
