/** TCP segments on the wire (RFC 9293 section 3.1), with the options that matter: MSS, window scale, SACK. */

import { ProtocolError, putU16, putU32, u16, u32 } from "../bytes.ts";
import { buildPacket, checksum, headerLength, type IpPacket, pseudoSum, TCP } from "../ip.ts";

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;

/** One range that came out of order: the number of its first byte and of the byte behind it. */
export type SackBlock = readonly [number, number];

export interface Segment {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly flags: number;
  readonly window: number;
  readonly data: Uint8Array;
  readonly mss?: number | undefined;
  readonly scale?: number | undefined;
  readonly sackPermitted?: boolean | undefined;
  readonly sack?: readonly SackBlock[] | undefined;
}

/** The segment in an IP packet; ProtocolError for one that is cut short or was changed on its way. */
export function parseSegment(packet: IpPacket): Segment {
  const { payload, source, destination } = packet;
  if (payload.length < 20) throw new ProtocolError(`a TCP segment of ${payload.length} bytes`);
  const header = (payload[12]! >> 4) * 4;
  if (header < 20 || header > payload.length) throw new ProtocolError("a TCP header that cannot be");
  if (checksum(payload, pseudoSum(source, destination, TCP, payload.length)) !== 0) {
    throw new ProtocolError("a TCP segment with a wrong checksum");
  }
  return {
    sourcePort: u16(payload, 0),
    destinationPort: u16(payload, 2),
    sequence: u32(payload, 4),
    acknowledgement: u32(payload, 8),
    flags: payload[13]! & 0x3f,
    window: u16(payload, 14),
    data: payload.subarray(header),
    ...options(payload.subarray(20, header)),
  };
}

function options(data: Uint8Array): Pick<Segment, "mss" | "scale" | "sackPermitted" | "sack"> {
  let mss: number | undefined;
  let scale: number | undefined;
  let sackPermitted = false;
  let sack: SackBlock[] | undefined;
  for (let at = 0; at < data.length; ) {
    const kind = data[at]!;
    if (kind === 0) break;
    if (kind === 1) {
      at++;
      continue;
    }
    const length = data[at + 1] ?? 0;
    if (length < 2 || at + length > data.length) throw new ProtocolError("a TCP option that cannot be");
    if (kind === 2 && length === 4) mss = u16(data, at + 2);
    else if (kind === 3 && length === 3) scale = Math.min(data[at + 2]!, 14);
    else if (kind === 4) sackPermitted = true;
    else if (kind === 5) {
      sack = [];
      for (let block = at + 2; block + 8 <= at + length; block += 8) {
        sack.push([u32(data, block), u32(data, block + 4)]);
      }
    }
    at += length;
  }
  return { mss, scale, sackPermitted, sack };
}

/** The IP packet that carries a segment from one address to another. */
export function buildSegment(source: Uint8Array, destination: Uint8Array, segment: Segment): Uint8Array {
  const extra = optionBytes(segment);
  const size = 20 + extra.length + segment.data.length;
  const packet = buildPacket(source, destination, TCP, size);
  const body = packet.subarray(headerLength(source));
  putU16(body, 0, segment.sourcePort);
  putU16(body, 2, segment.destinationPort);
  putU32(body, 4, segment.sequence);
  putU32(body, 8, segment.acknowledgement);
  body[12] = ((20 + extra.length) / 4) << 4;
  body[13] = segment.flags;
  putU16(body, 14, segment.window);
  body.set(extra, 20);
  body.set(segment.data, 20 + extra.length);
  putU16(body, 16, checksum(body, pseudoSum(source, destination, TCP, size)));
  return packet;
}

function optionBytes(segment: Segment): Uint8Array {
  const out: number[] = [];
  if (segment.mss !== undefined) out.push(2, 4, segment.mss >> 8, segment.mss & 255);
  if (segment.scale !== undefined) out.push(1, 3, 3, segment.scale);
  if (segment.sackPermitted) out.push(1, 1, 4, 2);
  if (segment.sack !== undefined && segment.sack.length > 0) {
    out.push(1, 1, 5, 2 + 8 * segment.sack.length);
    for (const [start, end] of segment.sack) {
      for (const value of [start, end])
        out.push(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
    }
  }
  return new Uint8Array(out);
}
