/* What a forger does: SHA-256 continued from a digest alone, without the secret before it.
 */
#pragma once

#include "base.h"

#include <string.h>

static inline uint32_t forge_rotate(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

/* The compression function of SHA-256 (FIPS 180-4), which a length extension continues. */
static inline void forge_block(uint32_t state[static 8], const uint8_t *block)
{
	static const uint32_t k[64] = {
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
		0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
		0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
		0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
		0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
		0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
		0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
		0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
		0xc67178f2,
	};
	uint32_t w[64], v[8];
	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
		       (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (forge_rotate(w[i - 15], 7) ^ forge_rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (forge_rotate(w[i - 2], 17) ^ forge_rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(v, state, sizeof(v));
	for (int i = 0; i < 64; i++) {
		uint32_t t1 =
			v[7] +
			(forge_rotate(v[4], 6) ^ forge_rotate(v[4], 11) ^ forge_rotate(v[4], 25)) +
			((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
		uint32_t t2 =
			(forge_rotate(v[0], 2) ^ forge_rotate(v[0], 13) ^ forge_rotate(v[0], 22)) +
			((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
		memmove(v + 1, v, 7 * sizeof(v[0]));
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		state[i] += v[i];
}

/* Appends what SHA-256 pads a message of total_len bytes with. */
static inline size_t forge_padding(uint8_t *buf, size_t len, size_t total_len)
{
	size_t zeros = (119 - total_len % 64) % 64;
	buf[len++] = 0x80;
	memset(buf + len, 0, zeros);
	len += zeros;
	for (int shift = 56; shift >= 0; shift -= 8)
		buf[len++] = (uint8_t)((uint64_t)total_len * 8 >> shift);
	return len;
}

/* The digest of secret || body || glue || suffix, made of the digest of secret || body alone. */
static inline void forge_digest(uint8_t digest[static 32], size_t hashed_len, const char *suffix)
{
	uint32_t state[8];
	uint8_t tail[256];
	for (int i = 0; i < 8; i++)
		state[i] = (uint32_t)digest[4 * i] << 24 | (uint32_t)digest[4 * i + 1] << 16 |
			   (uint32_t)digest[4 * i + 2] << 8 | digest[4 * i + 3];
	memcpy(tail, suffix, strlen(suffix));
	size_t len = forge_padding(tail, strlen(suffix), hashed_len + strlen(suffix));
	for (size_t at = 0; at < len; at += 64)
		forge_block(state, tail + at);
	for (int i = 0; i < 32; i++)
		digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

/* In base64 without padding. */
static inline void forge_base64(const uint8_t digest[static 32], char text[static 44])
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < 43; i++) {
		size_t bit = 6 * i, byte = bit / 8;
		uint32_t pair = (uint32_t)digest[byte] << 8 | (byte < 31 ? digest[byte + 1] : 0);
		text[i] = digits[pair >> (10 - bit % 8) & 63];
	}
	text[43] = '\0';
}
