-- +goose Up
-- What a roll went past because it does not open, by the roll that met it.
CREATE TABLE roll_skipped (
    roll   BIGINT NOT NULL REFERENCES roll (id),
    tenant BIGINT NOT NULL,
    what   TEXT   NOT NULL,  -- as 'key page 17'
    why    TEXT   NOT NULL,
    PRIMARY KEY (roll, what)
);
